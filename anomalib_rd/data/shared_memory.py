"""Whether the batches of the data workers fit into shared memory, which Docker limits to 64 MiB."""

import logging
import os
import re
from pathlib import Path

from anomalib_rd.errors import UserError

FOLDER = Path("/dev/shm")
# Batches that a worker holds ready: torch's prefetch_factor.
PREFETCHED = 2
WAYS_OUT = (
    "give the container more (docker run --shm-size=8g, or --ipc=host), take smaller batches, or"
    " set data.num_workers=0"
)
# What torch says when a worker finds none left, or is killed for writing beyond it.
EXHAUSTED = re.compile(
    r"unable to (allocate|open|resize|write to|mmap) .*(shared memory|/torch_)|Bus error"
    r"|out of shared memory|torch_\S+>.*No space left",
    re.DOTALL,
)

log = logging.getLogger(__name__)


def usable_workers(asked: int | None, default: int, batch_bytes: int) -> int:
    """How many data workers to start.

    Args:
        asked: by the user; None: as many of ``default`` as there is shared memory for.
        default: without a wish.
        batch_bytes: of the largest batch.

    Raises:
        UserError: no shared memory for as many as the user asks for.
    """
    free = free_bytes()
    wanted = default if asked is None else asked
    if free is None or wanted == 0 or needed_bytes(wanted, batch_bytes) <= free:
        return wanted
    why = (
        f"{wanted} data workers hold up to {needed_bytes(wanted, batch_bytes) / 2**20:.0f} MiB of"
        f" images in shared memory, and {FOLDER} has {free / 2**20:.0f} MiB"
    )
    if asked is not None:
        raise UserError(f"data.num_workers={asked}: {why}; {WAYS_OUT}")
    fitting = max(n for n in range(wanted) if n == 0 or needed_bytes(n, batch_bytes) <= free)
    log.warning("data.num_workers: %d, for %s; for more %s", fitting, why, WAYS_OUT)
    return fitting


def needed_bytes(workers: int, batch_bytes: int) -> int:
    """What the workers hold at most: the batches made ahead, one in use and the next."""
    return (PREFETCHED * workers + 2) * batch_bytes


def free_bytes() -> int | None:
    """What is left of the shared memory; None where it is not a file system."""
    try:
        state = os.statvfs(FOLDER)
    except (OSError, AttributeError):
        return None
    return state.f_bavail * state.f_frsize


def explain_exhausted(error: BaseException) -> str | None:
    """One line where data workers found no shared memory left; None for other errors."""
    if isinstance(error, RuntimeError) and EXHAUSTED.search(str(error)):
        return f"the data workers have no shared memory left ({FOLDER}); {WAYS_OUT}"
    return None
