"""Number of data workers that fit into shared memory, and their start method."""

import logging
import multiprocessing
import os
import re
from pathlib import Path

from anomalib_rd.errors import UserError

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
PREFETCH_FACTOR = 2  # torch's default: batches that a worker prepares ahead
REMEDIES = (
    "give the container more (docker run --shm-size=8g, or --ipc=host), use smaller batches, or"
    " set data.num_workers=0"
)
# torch's messages when shared memory is full, or a worker is killed for writing beyond it.
EXHAUSTED = re.compile(
    r"unable to (allocate|open|resize|write to|mmap) .*(shared memory|/torch_)|Bus error"
    r"|out of shared memory|torch_\S+>.*No space left",
    re.DOTALL,
)


def count_workers(requested: int | None, default: int, batch_bytes: int) -> int:
    """Number of data workers to start.

    Args:
        requested: number that the user set; None: ``default``, or as many as fit.
        default: number without a request.
        batch_bytes: size of the largest batch.

    Raises:
        UserError: shared memory is too small for the requested number.
    """
    free = free_shared_memory()
    wanted = default if requested is None else requested
    if free is None or wanted == 0 or needed_bytes(wanted, batch_bytes) <= free:
        return wanted
    reason = (
        f"{wanted} data workers hold up to {needed_bytes(wanted, batch_bytes) / 2**20:.0f} MiB of"
        f" images in shared memory, and {SHARED_MEMORY} has {free / 2**20:.0f} MiB"
    )
    if requested is not None:
        raise UserError(f"data.num_workers={requested}: {reason}; {REMEDIES}")
    fitting = max(n for n in range(wanted) if n == 0 or needed_bytes(n, batch_bytes) <= free)
    log.warning("data.num_workers: %d, because %s; for more, %s", fitting, reason, REMEDIES)
    return fitting


def needed_bytes(workers: int, batch_bytes: int) -> int:
    """Maximum bytes in shared memory: the prefetched batches, the current one and the next."""
    return (PREFETCH_FACTOR * workers + 2) * batch_bytes


def free_shared_memory() -> int | None:
    """Free bytes of shared memory; None where it is not a file system."""
    try:
        state = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return state.f_bavail * state.f_frsize


def explain_shared_memory_error(error: BaseException) -> str | None:
    """One line if data workers ran out of shared memory; None for other errors."""
    if isinstance(error, RuntimeError) and EXHAUSTED.search(str(error)):
        return f"the data workers ran out of shared memory ({SHARED_MEMORY}); {REMEDIES}"
    return None


def start_method() -> str | None:
    """Start method of worker processes; None: torch's default.

    Inside joblib's workers the default is joblib's own method, which torch cannot use.
    """
    methods = multiprocessing.get_all_start_methods()
    current = multiprocessing.get_start_method(allow_none=True)
    return None if current is None or current in methods else methods[0]
