"""What the processes that a launcher starts need beside the job itself."""

import os
import socket
import stat
import warnings
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import platformdirs
from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from anomalib_rd.errors import UserError

FOLDER = "ANOMALIB_RD_FOLDER"
# Held until the process ends, and with it the claim on a GPU.
_claims: list[FileLock] = []


class AssignGPU(Callback):
    """Shows the job one GPU: the one that the fewest jobs of this user have."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra in the process that runs the job."""
        # A worker that runs a second job has its GPU already, and CUDA would keep the first.
        if not _claims and (gpus := visible_gpus()):
            os.environ["CUDA_VISIBLE_DEVICES"] = claim(gpus)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def claim(gpus: list[str], folder: Path | None = None) -> str:
    """Take the first free GPU until this process ends; with all taken, a second share, and so on.

    Args:
        gpus: names of GPUs, at least one.
        folder: of the lock files; None for `lock_folder`.

    Raises:
        UserError: there is no folder for the lock files.
    """
    folder = folder or lock_folder()
    for share in count():
        for gpu in gpus:
            # Older names of MIG devices hold a slash.
            lock = FileLock(folder / f"{quote(gpu, safe='')}-{share}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            _claims.append(lock)
            return gpu
    raise AssertionError("never: there is always another share")


def lock_folder() -> Path:
    """A folder of this machine that no other user can write to.

    The user's runtime folder; where there is none that is safe, one in the cache folder.

    Raises:
        UserError: neither is safe.
    """
    places = []
    # PermissionError: its stand-in in the temporary folder is somebody else's.
    with warnings.catch_warnings(), suppress(PermissionError):
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set, as in a container
        places.append(platformdirs.user_runtime_path("anomalib-rd"))
    # A home folder may be shared by several machines.
    places.append(platformdirs.user_cache_path("anomalib_rd") / f"locks-{socket.gethostname()}")
    for place in places:
        if is_own(make_private(place)):
            return place
    raise UserError(
        f"no private folder for the locks of GPUs: {' and '.join(map(str, places))} must belong "
        "to you with mode 700; set XDG_RUNTIME_DIR to such a folder"
    )


def make_private(folder: Path) -> Path:
    """Make a folder, with those above it, for this user alone, unless something is there."""
    if not folder.parent.exists():
        make_private(folder.parent)
    with suppress(OSError):  # it is there, or cannot be made: `is_own` looks at it
        folder.mkdir(mode=0o700)
    return folder


def is_own(folder: Path) -> bool:
    """Whether no other user can write in a folder or put another in its place.

    It belongs to this user with mode 700. The folder above belongs to this user or root, and others
    can't write there, or rename only what is theirs. Both are no links.
    """
    try:
        own, above = folder.lstat(), folder.parent.lstat()
    except OSError:
        return False
    open_to_all = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
    return (
        stat.S_ISDIR(own.st_mode)
        and own.st_uid == os.getuid()
        and stat.S_IMODE(own.st_mode) == 0o700
        and stat.S_ISDIR(above.st_mode)
        and above.st_uid in (os.getuid(), 0)
        and not open_to_all
    )


def enter_working_folder() -> None:
    """Go where the sweep was started: paths may be relative. A Ray worker's first act."""
    os.chdir(os.environ[FOLDER])
