"""Callbacks: moving average of the weights, progress on disk, random states."""

import random
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from anomalib_rd.errors import UserError
from anomalib_rd.results.sweeps import TOUCH_EVERY, record_epoch, touch_running


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and buffers: what is validated, tested and kept.

    Each step makes each of them ``d * average + (1 - d) * value``. d is the lower of ``decay`` and
    ``(1 + t) / (10 + t)`` after t steps, or the first ones would stay (as in TensorFlow's
    ExponentialMovingAverage).

    Args:
        decay: between 0 and 1, both excluded; it averages over about 1 / (1 - decay) steps.

    Raises:
        UserError: another decay.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise UserError(f"model.ema_decay={decay}: give a number between 0 and 1, such as 0.98")

        def average(averages: Any, values: Any, steps: Tensor) -> None:
            warming = (1 + int(steps)) / (10 + int(steps))
            get_ema_multi_avg_fn(min(decay, warming))(averages, values, steps)

        super().__init__(multi_avg_fn=average)

    # A scorer that standardises learns at the start of a validation, of the weights that it judges.
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judge the average; after the training it is in place already."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train on with the weights of the last step."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_end(trainer, pl_module)

    def on_validation_epoch_start(self, *_: Any) -> None:
        """Done at the start of all."""

    def on_validation_epoch_end(self, *_: Any) -> None:
        """Done at the end of all."""

    def on_train_end(self, *_: Any) -> None:
        """Not called where a resumed run has nothing left to train: see `on_fit_end`."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in place."""
        super().on_train_end(trainer, pl_module)


class Heartbeat(L.Callback):
    """Keeps ``running.json`` (see `anomalib_rd.results.sweeps`) up to date.

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
            record_epoch(self.run_dir, epoch, epochs, first)

    def _beat(self, trainer: L.Trainer) -> None:
        now = time.monotonic()
        if trainer.is_global_zero and now - self.touched > TOUCH_EVERY:
            self.touched = now
            touch_running(self.run_dir)


def capture() -> dict[str, Any]:
    """States of torch (CPU, every CUDA device), NumPy and Python in this process.

    Tensors and plain types alone, which ``torch.load(weights_only=True)`` takes.
    """
    version, words, gauss = random.getstate()
    kind, state, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(state).astype(np.int64))],
        "numpy_rest": [int(position), int(has_gauss), float(cached)],
        "python": [version, list(words), gauss],
    }


def seed_all(seed: int) -> None:
    """Seed torch (every device), NumPy and Python in this process."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def restore(states: dict[str, Any]) -> None:
    """Go on drawing where `capture` was called; CUDA devices that were not there are left alone."""
    torch.set_rng_state(states["torch"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
    kind, words = states["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *states["numpy_rest"]))
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python), gauss))


def capture_all() -> list[dict[str, Any]]:
    """The states of every process of a distributed run, by rank; called by all of them at once."""
    mine = capture()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [mine]
    every: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, mine)
    return every
