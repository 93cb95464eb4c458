"""PRO as RD4AD and its successors report it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anomalib_rd.metrics.counting import to_rankable
from anomalib_rd.metrics.functional import check_pixels
from anomalib_rd.metrics.ranking import region_areas

_THRESHOLDS = 200
_FPR_LIMIT = 0.3


def pro_rd4ad(maps: Tensor, masks: Tensor) -> float:
    """Mean per-image PRO of RD4AD (arXiv 2201.10703, `compute_pro` of its code).

    Each defect image is evaluated separately: at 200 thresholds from its lowest score up, the
    mean overlap of its 8-connected regions and its false positive rate (FPR). Points with an
    FPR < 0.3 are kept, the FPR is divided by the largest one kept, and the area is integrated by
    the trapezoidal rule. Not comparable with `aupro`: the FPR of each image is scaled differently.

    An image without such an area is excluded from the mean, with a warning: its map is constant,
    it has no normal pixel, fewer than two points are kept, or all have an FPR of 0. RD4AD's own
    code fails there. `aupro` evaluates such images exactly.

    Args:
        maps: (N, H, W) finite scores, any device.
        masks: (N, H, W) bool or 0/1.

    Returns:
        A fraction in [0, 1]; NaN if no image has a defined curve.

    Raises:
        ValueError: shapes differ, masks are not 0/1, or a score is NaN or infinite.
    """
    maps, masks = check_pixels(maps, masks)
    infinite = int(maps.isinf().sum())
    if infinite:
        raise ValueError(
            f"{infinite} of {maps.numel()} pixel scores are infinite: "
            "RD4AD's evenly spaced thresholds need finite ones"
        )
    truths = masks.cpu().numpy()
    defective = [i for i, truth in enumerate(truths) if truth.any()]
    areas = np.array([_image_pro(to_rankable(maps[i].cpu()).numpy(), truths[i]) for i in defective])
    defined = areas[~np.isnan(areas)]
    if len(defined) < len(areas):
        warnings.warn(
            f"pro_rd4ad is undefined for {len(areas) - len(defined)} of {len(areas)} "
            "defect images, which its mean excludes",
            stacklevel=2,
        )
    return float(defined.mean()) if len(defined) else float("nan")


def _image_pro(scores: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    lowest, highest = float(scores.min()), float(scores.max())
    step = (highest - lowest) / _THRESHOLDS
    normals = scores[~mask]
    if step == 0 or normals.size == 0:
        return float("nan")
    thresholds = np.arange(lowest, highest, step)
    weights = 1.0 / region_areas(mask)
    overlap = _above(thresholds, scores[mask], weights / weights.sum())
    fpr = _above(thresholds, normals) / normals.size
    kept = fpr < _FPR_LIMIT
    if kept.sum() < 2 or fpr[kept].max() == 0:
        return float("nan")
    rescaled = fpr[kept] / fpr[kept].max()
    return float(np.trapezoid(overlap[kept][::-1], rescaled[::-1]))


def _above(
    thresholds: NDArray[np.float64], values: NDArray[Any], weights: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Count, or sum the weights of, the values > each threshold (ascending)."""
    thresholds_below = np.searchsorted(thresholds, values, "left")
    histogram = np.bincount(thresholds_below, weights, len(thresholds) + 1)
    return histogram[::-1].cumsum()[::-1][1:]
