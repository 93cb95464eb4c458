"""What the processes that a launcher starts need beside the job itself."""

import fcntl
import os
import tempfile
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

FOLDER = "ANOMALIB_RD_FOLDER"
# Held open: the claim on a GPU ends with the process.
_claims: list[TextIO] = []


class OneGPU(Callback):
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
        folder: of the lock files; None for one in the system's temporary folder.
    """
    folder = folder or Path(tempfile.gettempdir(), f"anomalib-rd-gpus-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    for share in count():
        for gpu in gpus:
            file = (folder / f"{gpu}-{share}.lock").open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
            else:
                _claims.append(file)
                return gpu
    raise AssertionError("never: there is always another share")


def enter_folder() -> None:
    """Go where the sweep was started: paths may be relative. A Ray worker's first act."""
    os.chdir(os.environ[FOLDER])
