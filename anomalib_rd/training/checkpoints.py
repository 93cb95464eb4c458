"""Checkpoints that are whole or not there, and the one that a run goes on from."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig
from torch import Tensor

from anomalib_rd.results.files import one_line, write_atomically
from anomalib_rd.results.identity import require_same_run
from anomalib_rd.results.progress import first_process
from anomalib_rd.training.module import DistillationModule

CHECKPOINT = "checkpoints/last.ckpt"

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint and renames; reads tensors and plain types alone.

    Lightning writes into the system's temporary folder and moves: from another disk that is a
    copy, which a killed process leaves half done.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        """Write a checkpoint so that whoever looks sees the old one or the whole new one."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint into host memory."""
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last epoch, and on the way there an earlier one to go on from.

    On a GPU an epoch can be shorter than the writing of its checkpoint.

    Args:
        every_s: least seconds from one checkpoint to the next; the last epoch's is always written.
        **options: of ModelCheckpoint.
    """

    def __init__(self, every_s: float, **options: Any) -> None:
        super().__init__(save_on_train_epoch_end=True, **options)
        self.every_s, self.written = every_s, 0.0

    def on_train_start(self, *args: Any) -> None:
        """The first checkpoint is due when that much has been trained."""
        super().on_train_start(*args)
        self.written = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write a checkpoint if it is time to, or the end."""
        ends = (
            trainer.should_stop,
            trainer.current_epoch + 1 == trainer.max_epochs,
            trainer.global_step == trainer.max_steps,
        )
        due = time.monotonic() - self.written >= self.every_s
        # Every process must come to the same mind: to save is a work of all.
        if trainer.strategy.broadcast(any(ends) or due):
            super().on_train_epoch_end(trainer, pl_module)
            self.written = time.monotonic()


def keep(path: Path, **facts: Any) -> None:
    """Put plain values into a checkpoint; all else in it stays as it is.

    Raises:
        OSError: the file cannot be written.
    """
    # Mapped: whatever its size, it goes from file to file.
    kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if any(kept.get(name) != value for name, value in facts.items()):
        AtomicCheckpointIO().save_checkpoint({**kept, **facts}, path)


def keep_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Put tensors that training has not made into a checkpoint's state.

    Raises:
        OSError: the file cannot be written.
    """
    kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    own = {**kept["state_dict"], **{name: value.cpu() for name, value in state.items()}}
    AtomicCheckpointIO().save_checkpoint({**kept, "state_dict": own}, path)


@dataclass(frozen=True)
class Restart:
    """Where a run goes on: the checkpoint and the epochs that it has behind it."""

    path: Path
    epoch: int


def find_restart(run_dir: Path, cfg: DictConfig, module: DistillationModule) -> Restart | None:
    """The checkpoint that a run was cut off with, or None to start anew.

    One that is damaged, or does not fit the networks of this version, gets a warning.

    Args:
        run_dir: the run's folder.
        cfg: its config.
        module: made from the config.

    Raises:
        UserError: the checkpoint is of another config.
    """
    path = run_dir / CHECKPOINT
    if not path.is_file():
        return None
    try:
        kept = AtomicCheckpointIO().load_checkpoint(path)
        config, digest, epoch = kept["config"], kept["config_digest"], epochs_behind(kept)
        misfit = why_unfit(kept, module)
    except Exception as error:  # torch, zipfile and pickle each raise their own
        misfit = f"it is damaged or of another version ({one_line(error)[:100]})"
    else:
        if misfit is None:
            require_same_run(run_dir, cfg, config, digest)
            return Restart(path, epoch)
    if first_process():
        log.warning("%s can't be resumed: %s; the run starts anew", path, misfit)
    return None


def epochs_behind(checkpoint: Mapping[str, Any]) -> int:
    """Epochs trained before Lightning wrote the checkpoint; 0 for one written without training."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    return int(progress["current"]["processed"])


def why_unfit(checkpoint: Mapping[str, Any], module: DistillationModule) -> str | None:
    """Why the checkpoint does not fit the module, None if it does."""
    if not checkpoint["randomness"] or not checkpoint.get("optimizer_states"):
        return "it holds no state of a training"
    kept = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    own = {name: tuple(value.shape) for name, value in module.own_state().items()}
    wrong = sorted(name for name in kept.keys() | own.keys() if kept.get(name) != own.get(name))
    return f"its networks are others ({wrong[0]})" if wrong else None
