"""A moving average of the weights, judged and kept in place of the last step's."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from anomalib_rd.errors import UserError


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
            raise UserError(f"averaging.decay={decay}: give a number between 0 and 1, such as 0.98")

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
