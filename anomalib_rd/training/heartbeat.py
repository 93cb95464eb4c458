"""Tells the world outside how far the training is."""

import time
from pathlib import Path
from typing import Any

import lightning as L

from anomalib_rd.results.progress import TOUCH_EVERY, note_epoch, touch


class Heartbeat(L.Callback):
    """Keeps ``running.json`` (see `anomalib_rd.results.progress`) up to date.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.touched = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Where training begins: after the epochs of an earlier process."""
        self._note(trainer, trainer.current_epoch, first=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """One epoch more."""
        self._note(trainer, trainer.current_epoch + 1)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Still alive."""
        self._beat(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Still alive."""
        self._beat(trainer)

    def on_test_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Still alive."""
        self._beat(trainer)

    def _note(self, trainer: L.Trainer, epoch: int, first: bool = False) -> None:
        if trainer.is_global_zero:
            limit = trainer.max_epochs
            epochs = limit if limit is not None and limit >= 0 else None
            note_epoch(self.run_dir, epoch, epochs, first)

    def _beat(self, trainer: L.Trainer) -> None:
        now = time.monotonic()
        if trainer.is_global_zero and now - self.touched > TOUCH_EVERY:
            self.touched = now
            touch(self.run_dir)
