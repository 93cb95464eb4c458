"""Callbacks: moving average, loss curve with its checks, random states, progress on disk."""

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
from anomalib_rd.results.sweeps import TOUCH_EVERY, record_epoch, touch_running
from anomalib_rd.seeds import process_seed


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and buffers, which is validated, tested and saved.

    Each step sets it to ``d * average + (1 - d) * value``, where d is the lower of ``decay`` and
    ``(1 + t) / (10 + t)`` after t steps, so that the first weights do not persist (as in
    TensorFlow's ExponentialMovingAverage).

    Args:
        decay: between 0 and 1, both excluded; it averages over about 1 / (1 - decay) steps.

    Raises:
        UserError: another decay.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise UserError(f"model.ema_decay={decay}: give a number between 0 and 1, such as 0.98")

        def average(averages: Any, values: Any, steps: Tensor) -> None:
            warm_up = (1 + int(steps)) / (10 + int(steps))
            get_ema_multi_avg_fn(min(decay, warm_up))(averages, values, steps)

        super().__init__(multi_avg_fn=average)

    # A standardising scorer is fitted at the start of a validation, to the weights that are
    # validated: the average must be in place before that.
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the average; after the training it is in place already."""
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
        """Not called if a resumed run has nothing left to train: see `on_fit_end`."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in place."""
        super().on_train_end(trainer, pl_module)


class LossMonitor(L.Callback):
    """Keeps the loss curve, and ends a training whose losses or weights are not finite.

    Checked once an epoch, before its checkpoint is written: on a GPU the host would have to wait
    for every batch that it checks.

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
        """Check within an epoch too: a lost loss is the cause of NaN in the maps."""
        if self.batch_losses:
            self._check(trainer, pl_module)

    def _check(self, trainer: L.Trainer, pl_module: Any) -> None:
        weights = pl_module.state_without_teacher().values()
        epoch, advice = trainer.current_epoch + 1, divergence_advice(trainer)
        require_finite_training(self.batch_losses, weights, epoch, self.curve, advice)


def require_finite_training(
    losses: Sequence[Tensor], weights: Iterable[Tensor], epoch: int, curve: list[float], advice: str
) -> None:
    """Check the losses of an epoch's batches and the weights after it.

    Raises:
        NotFiniteError: naming the first bad batch, with the losses of this and earlier epochs.
    """
    floats = [tensor.detach() for tensor in weights if tensor.is_floating_point()]
    norm = torch.nn.utils.get_total_norm(floats)  # NaN or infinite if any of them is
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
    """What to change if numbers are not finite."""
    full = trainer.precision == "32-true"
    return "lower optimizer.lr" + ("" if full else " or train with trainer.precision=32-true")


class ResumeState(L.Callback):
    """Saves what a resumed training needs besides Lightning's own state.

    That is the random states of all processes, and whether the training had ended early.

    Args:
        seed: of the run. A new run's processes are seeded alike, for equal networks; when the
            training starts, each gets a seed of its own and draws its own masks.
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
        """Keep the states until the training starts."""
        self.random_states = checkpoint.get("random_states", [])
        self.stopped = checkpoint.get("stopped", False)

    def on_fit_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Train nothing if the training had ended early."""
        trainer.should_stop = self.stopped

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Continue the random numbers, whatever has been drawn since."""
        rank = trainer.global_rank
        if rank < len(self.random_states):
            set_random_state(self.random_states[rank])
        elif rank:
            seed = process_seed(self.seed, rank)
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)

    def on_fit_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Count the last epoch, as Lightning does later than it writes the checkpoint."""
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
    """The `random_state` of every process of a run by rank; all of them must call it at once."""
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
        """Write the first epoch of this process, which follows those of earlier processes."""
        self._note(trainer, trainer.current_epoch, first=True)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Write the number of epochs."""
        self._note(trainer, trainer.current_epoch + 1)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Touch the file."""
        self._touch(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Touch the file."""
        self._touch(trainer)

    def on_test_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Touch the file."""
        self._touch(trainer)

    def _touch(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero and time.monotonic() - self.touched > TOUCH_EVERY:
            self.touched = time.monotonic()
            touch_running(self.run_dir)

    def _note(self, trainer: L.Trainer, epoch: int, first: bool = False) -> None:
        if trainer.is_global_zero:
            limit = trainer.max_epochs
            epochs = limit if limit is not None and limit >= 0 else None
            record_epoch(self.run_dir, epoch, epochs, first)
