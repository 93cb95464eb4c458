"""GPUs and working folders of the processes that a launcher starts."""

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
# Until the process ends; each reserves a share of a GPU.
_locks: list[FileLock] = []


class AssignGPU(Callback):
    """Gives each job one GPU: the one with the fewest jobs of this user."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra in the process of the job."""
        # A worker keeps its GPU for later jobs, because CUDA cannot change it.
        if not _locks and (gpus := visible_gpus()):
            os.environ["CUDA_VISIBLE_DEVICES"] = claim_gpu(gpus)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as in ``CUDA_VISIBLE_DEVICES``."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def claim_gpu(gpus: list[str], folder: Path | None = None) -> str:
    """Reserve the first free GPU until this process ends; if none is free, share one.

    Args:
        gpus: names of GPUs, at least one.
        folder: of the lock files; None for `lock_folder`.

    Raises:
        UserError: no private folder for the lock files.
    """
    folder = folder or lock_folder()
    for share in count():
        for gpu in gpus:
            # Old names of MIG devices contain slashes.
            lock = FileLock(folder / f"{quote(gpu, safe='')}-{share}.lock", timeout=0)
            with suppress(Timeout):
                lock.acquire()
                _locks.append(lock)
                return gpu
    raise AssertionError("unreachable: there is always another share")


def lock_folder() -> Path:
    """A folder of this machine that no other user can write to.

    The user's runtime folder; if it is missing or not private, one in the cache folder.

    Raises:
        UserError: neither is private.
    """
    folders = []
    # PermissionError: the fallback in the temporary folder belongs to another user.
    with warnings.catch_warnings(), suppress(PermissionError):
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set, as in a container
        folders.append(platformdirs.user_runtime_path("anomalib-rd"))
    # Several machines may share a home folder.
    folders.append(platformdirs.user_cache_path("anomalib_rd") / f"locks-{socket.gethostname()}")
    for folder in folders:
        _make_private(folder)
        if _is_private(folder):
            return folder
    raise UserError(
        f"no private folder for the locks of GPUs: {' and '.join(map(str, folders))} must belong "
        "to you with mode 700; set XDG_RUNTIME_DIR to such a folder"
    )


def _make_private(folder: Path) -> None:
    """Create a folder and its parents for this user only; errors are ignored."""
    if not folder.parent.exists():
        _make_private(folder.parent)
    with suppress(OSError):
        folder.mkdir(mode=0o700)


def _is_private(folder: Path) -> bool:
    """Whether no other user can write in a folder or replace it.

    It must belong to this user with mode 700; its parent must belong to this user or root and not
    be writable for others, unless sticky. Neither may be a link.
    """
    try:
        own, parent = folder.lstat(), folder.parent.lstat()
    except OSError:
        return False
    open_to_all = parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX
    return (
        stat.S_ISDIR(own.st_mode)
        and own.st_uid == os.getuid()
        and stat.S_IMODE(own.st_mode) == 0o700
        and stat.S_ISDIR(parent.st_mode)
        and parent.st_uid in (os.getuid(), 0)
        and not open_to_all
    )


def enter_working_folder() -> None:
    """Change to the folder of the command, because paths may be relative; for Ray workers."""
    os.chdir(os.environ[FOLDER])
