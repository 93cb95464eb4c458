"""Exact metrics as functions of tensors on any device.

All are fractions in [0, 1], exact (no binning), with ties counted as the definitions say, and
NaN where undefined (`why_undefined` has the reason in words). Infinite scores rank as any
other; NaN scores raise ValueError. To get metrics and curves from one sort, build a ranking by
`rank_images` or `rank_pixels` and ask it for both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anomalib_rd.metrics.pro_rd4ad import pro_rd4ad
from anomalib_rd.metrics.ranking import (
    PixelRanking,
    Ranking,
    rank_images,
    rank_pixels,
    why_undefined,
)

__all__ = [
    "PixelRanking",
    "Ranking",
    "image_curves",
    "image_metrics",
    "pixel_curves",
    "pixel_metrics",
    "pro_rd4ad",
    "rank_images",
    "rank_pixels",
    "why_undefined",
]


def image_metrics(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """`image_auroc`, `image_ap`, `image_f1max` of scores (N,) against labels (N,) 0/1.

    AUROC is the rank statistic with ties counting half, AP scikit-learn's step sum, F1-max the
    best F1 over all distinct thresholds.
    """
    return rank_images(scores, labels).metrics()


def pixel_metrics(maps: Tensor, masks: Tensor) -> dict[str, float]:
    """`pixel_auroc`, `pixel_ap`, `pixel_f1max`, `aupro`, `aupro_5` of maps and masks (N, H, W)."""
    return rank_pixels(maps, masks).metrics()


def image_curves(
    scores: Tensor, labels: Tensor, max_points: int = 1000
) -> dict[str, NDArray[np.float64]]:
    """Curves of image scores (N,) for plots: see `Ranking.curves` for the keys."""
    return rank_images(scores, labels).curves(max_points)


def pixel_curves(
    maps: Tensor, masks: Tensor, max_points: int = 1000
) -> dict[str, NDArray[np.float64]]:
    """Curves of pixel scores (N, H, W) for plots: see `PixelRanking.curves` for the keys."""
    return rank_pixels(maps, masks).curves(max_points)
