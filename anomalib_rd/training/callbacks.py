"""Callbacks: moving average, loss checks, random states, progress file."""

import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from anomalib_rd.errors import NotFiniteError, UserError
from anomalib_rd.process_seed import process_seed
from anomalib_rd.results.sweeps import TOUCH_EVERY, record_epoch, touch_running


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and buffers, which is validated, tested and saved.

    Each step sets it to ``d * average + (1 - d) * value``, where d is the lower of ``decay`` and
    ``(1 + t) / (10 + t)`` after t steps, so that the first weights do not persist (as in
    TensorFlow's ExponentialMovingAverage).

    Args:
        decay: between 0 and 1, both excluded; it averages over about 1 / (1 - decay) steps.

    Raises:
        UserError: the decay is out of range.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise UserError(f"model.ema_decay={decay}: must be between 0 and 1, such as 0.98")

        def average(averages: Any, values: Any, steps: Tensor) -> None:
            warm_up = (1 + int(steps)) / (10 + int(steps))
            get_ema_multi_avg_fn(min(decay, warm_up))(averages, values, steps)

        super().__init__(multi_avg_fn=average)

    # A standardising scorer is fitted when a validation starts: swap in the average before that.
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the average; after the training the module already has its weights."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Continue with the weights of the last step."""
        if trainer.state.fn == "fit":
            super().on_validation_epoch_end(trainer, pl_module)

    def on_validation_epoch_start(self, *_: Any) -> None:
        """See `on_validation_start`."""

    def on_validation_epoch_end(self, *_: Any) -> None:
        """See `on_validation_end`."""

    def on_train_end(self, *_: Any) -> None:
        """See `on_fit_end`: this hook is not called if a resumed run has no epoch left."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the average into the module."""
        super().on_train_end(trainer, pl_module)


class LossMonitor(L.Callback):
    """Records the loss curve, and stops a training whose losses or weights are not finite.

    The check runs once per epoch, before its checkpoint is written: checking every batch would
    make the host wait for the GPU.

    Attributes:
        curve: mean loss of each epoch.
    """

    def __init__(self) -> None:
        self.curve: list[float] = []
        self.batch_losses: list[Tensor] = []  # of this epoch, on the device

    def state_dict(self) -> dict[str, Any]:
        """The curve, for the checkpoint."""
        return {"curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the curve of a checkpoint."""
        self.curve = list(state_dict["curve"])

    def on_train_batch_end(self, trainer: L.Trainer, _module: Any, outputs: Any, *_: Any) -> None:
        """Collect the loss; Lightning has divided it by the number of accumulated batches."""
        self.batch_losses.append(outputs["loss"] * trainer.accumulate_grad_batches)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the epoch and extend the curve."""
        self._check(trainer, pl_module)
        self.batch_losses.clear()
        self.curve.append(float(trainer.callback_metrics["train/loss"]))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check within an epoch too: a diverged loss explains NaN in the maps."""
        if self.batch_losses:
            self._check(trainer, pl_module)

    def _check(self, trainer: L.Trainer, pl_module: Any) -> None:
        weights = pl_module.state_without_teacher().values()
        epoch, advice = trainer.current_epoch + 1, divergence_advice(trainer)
        require_finite_training(self.batch_losses, weights, epoch, self.curve, advice)


def require_finite_training(
    losses: Sequence[Tensor], weights: Iterable[Tensor], epoch: int, curve: list[float], advice: str
) -> None:
    """Raise NotFiniteError, which names the first bad batch, if a loss or weight is not finite."""
    floats = [tensor.detach() for tensor in weights if tensor.is_floating_point()]
    norm = torch.nn.utils.get_total_norm(floats)  # not finite if any weight is not
    values = torch.stack([*losses, norm.to(losses[0])]).cpu()  # the only transfer from the device
    finite = values.isfinite().tolist()
    *batch_losses, _ = values.tolist()
    if all(finite):
        return
    batch, count = finite.index(False), len(batch_losses)
    if batch < count:
        fault = f"train/loss is {batch_losses[batch]} in batch {batch + 1} of {count}"
    else:
        fault = f"the weights are not finite after the last of {count} batches"
    raise NotFiniteError(
        f"{fault} of epoch {epoch}: training diverged; {advice}",
        {"loss_curve": list(curve), "batch_losses": batch_losses},
    )


def divergence_advice(trainer: L.Trainer) -> str:
    """What the user can change after a divergence."""
    full = trainer.precision == "32-true"
    return "lower optimizer.lr" + ("" if full else " or train with trainer.precision=32-true")


class ResumeState(L.Callback):
    """Saves the random states of all processes, and whether the training was stopped early.

    Args:
        seed: of the run. All processes start with it, for equal networks; when the training
            starts, each gets a separate seed, so that it draws different masks.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.stopped = seed, False
        self.random_states: list[dict[str, Any]] = []

    def on_save_checkpoint(
        self, trainer: L.Trainer, _module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Save the states."""
        checkpoint["random_states"] = all_random_states()
        checkpoint["stopped"] = trainer.should_stop

    def on_load_checkpoint(self, _trainer: Any, _module: Any, checkpoint: dict[str, Any]) -> None:
        """Read the states; they are restored when the training starts."""
        self.random_states = checkpoint.get("random_states", [])
        self.stopped = checkpoint.get("stopped", False)

    def on_fit_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Train no further if the training was stopped early."""
        trainer.should_stop = self.stopped

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Restore the random states, or seed this process."""
        rank = trainer.global_rank
        if rank < len(self.random_states):
            set_random_state(self.random_states[rank])
        elif rank:
            seed = process_seed(self.seed, rank)
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)

    def on_fit_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Count the last epoch: Lightning counts it only after it has written the checkpoint."""
        if self.stopped:
            epochs: Any = trainer.fit_loop.epoch_progress.current
            epochs.completed = epochs.processed


def random_state() -> dict[str, Any]:
    """States of torch (CPU and every CUDA device), NumPy and Python in this process.

    Tensors and plain types only, which ``torch.load(weights_only=True)`` accepts.
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


def set_random_state(state: dict[str, Any]) -> None:
    """Continue from a `random_state`; the states of missing CUDA devices are ignored."""
    torch.set_rng_state(state["torch"])
    for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda_state, device)
    kind, words = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *state["numpy_rest"]))
    version, python, gauss = state["python"]
    random.setstate((version, tuple(python), gauss))


def all_random_states() -> list[dict[str, Any]]:
    """The `random_state` of every process, by rank; a collective call."""
    own = random_state()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, own)
    return states


class Heartbeat(L.Callback):
    """Updates ``running.json`` in the run's folder, see `anomalib_rd.results.sweeps`."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.touched = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Write the epoch from which this process trains."""
        self._write(trainer, trainer.current_epoch, first=True)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Write the number of epochs."""
        self._write(trainer, trainer.current_epoch + 1)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Touch the file."""
        if trainer.is_global_zero and time.monotonic() - self.touched > TOUCH_EVERY:
            self.touched = time.monotonic()
            touch_running(self.run_dir)

    on_validation_batch_end = on_test_batch_end = on_train_batch_end

    def _write(self, trainer: L.Trainer, epoch: int, first: bool = False) -> None:
        if trainer.is_global_zero:
            limit = trainer.max_epochs
            epochs = limit if limit is not None and limit >= 0 else None
            record_epoch(self.run_dir, epoch, epochs, first)
