"""The functional metrics as torchmetrics, gathered over batches and processes before ranking.

Their results do not depend on how images are split over batches or processes. They keep all
scores, on the device they come from: 256 KiB per map of 256x256, and at most as much again while
they compute. `StreamedPixelMetrics` needs bounded memory.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from anomalib_rd.metrics.pro_rd4ad import pro_rd4ad
from anomalib_rd.metrics.ranking import (
    Ranking,
    check_images,
    check_pixels,
    rank_images,
    rank_pixels,
)


class _Gathered(Metric):
    """Keeps values and truths of all batches."""

    full_state_update = False
    empty_shape: ClassVar[tuple[int, ...]]
    values: list[Tensor]
    truths: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("truths", default=[], dist_reduce_fx="cat")

    @staticmethod
    @abstractmethod
    def check(values: Tensor, truths: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return both, detached, truths as bool; ValueError on bad shapes or NaN."""

    def update(self, values: Tensor, truths: Tensor) -> None:
        """Add a batch; ValueError at once if it has a bad shape or NaN."""
        values, truths = self.check(values, truths)
        self.values.append(values)
        self.truths.append(truths)

    def _gather(self) -> tuple[Tensor, Tensor]:
        if len(self.values) == 0:
            return torch.empty(self.empty_shape), torch.empty(self.empty_shape, dtype=torch.bool)
        values, truths = dim_zero_cat(self.values), dim_zero_cat(self.truths)
        # The batches are not kept beside their concatenation.
        self.values, self.truths = [values], [truths]
        return values, truths


class _Ranked(_Gathered):
    """Metrics and curves from one ranking."""

    _ranking: Ranking

    @staticmethod
    @abstractmethod
    def rank(values: Tensor, truths: Tensor, /) -> Ranking:
        """Rank what was gathered."""

    def compute(self) -> dict[str, float]:
        """Return the metrics of everything seen since the last reset."""
        self._ranking = self.rank(*self._gather())
        return self._ranking.metrics()

    def curves(self, max_points: int = 1000) -> dict[str, NDArray[np.float64]]:
        """Return the curves of the same ranking; nothing is sorted again after `compute`."""
        self.compute()  # cached by torchmetrics unless batches came since
        return self._ranking.curves(max_points)


class ImageMetrics(_Ranked):
    """`image_metrics` of scores (B,) and labels (B,)."""

    check = staticmethod(check_images)
    rank = staticmethod(rank_images)
    empty_shape = (0,)


class PixelMetrics(_Ranked):
    """`pixel_metrics` of maps (B, H, W) and masks (B, H, W)."""

    check = staticmethod(check_pixels)
    rank = staticmethod(rank_pixels)
    empty_shape = (0, 0, 0)


class ProRD4AD(_Gathered):
    """`pro_rd4ad` of maps (B, H, W) and masks (B, H, W)."""

    check = staticmethod(check_pixels)
    empty_shape = (0, 0, 0)

    def compute(self) -> float:
        """Return the mean per-image PRO of everything seen since the last reset."""
        return pro_rd4ad(*self._gather())
