"""Exact image and pixel metrics as functions of tensors on any device.

All are fractions in [0, 1], exact (no binning), with ties counted as in their definitions, and
NaN where undefined (see `Ranking.why_undefined`). Infinite scores rank like any other score. To
get metrics and curves from one sort, use `rank_images` or `rank_pixels`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from anomalib_rd.metrics.counting import count_below, distinct, to_rankable
from anomalib_rd.metrics.ranking import (
    PixelRanking,
    Ranking,
    rank_scores,
    region_weights,
)


def image_metrics(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """`image_auroc`, `image_ap`, `image_f1max` of scores (N,) against labels (N,) 0/1.

    AUROC is the rank statistic with ties counting half, AP scikit-learn's step sum, F1-max the
    best F1 over all distinct thresholds.
    """
    return rank_images(scores, labels).metrics()


def pixel_metrics(maps: Tensor, masks: Tensor) -> dict[str, float]:
    """`pixel_auroc`, `pixel_ap`, `pixel_f1max`, `aupro`, `aupro_5` of maps and masks (N, H, W)."""
    return rank_pixels(maps, masks).metrics()


def rank_images(scores: Tensor, labels: Tensor) -> Ranking:
    """Rank image scores (N,) with labels (N,) 0/1; ValueError on bad shapes, labels or NaN."""
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(
            "scores and labels must both have shape (N,), "
            f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    scores, labels = _without_nan(scores, "image scores"), _as_bool(labels, "labels")
    return rank_scores(to_rankable(scores).cpu().numpy(), labels.cpu().numpy())


def rank_pixels(maps: Tensor, masks: Tensor) -> PixelRanking:
    """Rank maps (N, H, W) with masks (N, H, W); ValueError on bad shapes, masks or NaN.

    With up to 4 % defect pixels, its memory is at most that of the float32 maps.
    """
    maps, masks = check_pixels(maps, masks)
    truths = masks.cpu().numpy()
    with ThreadPoolExecutor(1) as pool:
        labelling = pool.submit(region_weights, truths)
        # NumPy finds the few defects far faster than a boolean index of torch does.
        defects = torch.from_numpy(np.flatnonzero(truths)).to(maps.device)
        thresholds, indices, counts = distinct(to_rankable(maps.reshape(-1)[defects]))
        weights = np.bincount(indices, labelling.result(), len(thresholds))
    del indices, labelling, defects  # counting needs their memory
    overlap = weights[::-1].cumsum(dtype=np.float64)
    overlap /= overlap[-1:]  # the inverse areas sum to the number of regions
    # Counting all pixels and subtracting the defects avoids selecting the normals.
    below, not_above = count_below(maps, thresholds)
    defects_up_to = counts.cumsum()
    not_above -= defects_up_to
    below -= defects_up_to - counts
    normals = maps.numel() - int(counts.sum())
    return PixelRanking.from_counts(thresholds, counts, below, not_above, normals, overlap=overlap)


def check_pixels(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and masks (N, H, W), detached, masks as bool; ValueError on bad shapes, masks or NaN."""
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(
            "maps and masks must both have shape (N, H, W), "
            f"got {tuple(maps.shape)} and {tuple(masks.shape)}"
        )
    return _without_nan(maps, "pixel scores"), _as_bool(masks, "masks")


def _without_nan(values: Tensor, name: str) -> Tensor:
    values = values.detach()
    if values.numel() and bool(values.min().isnan()):  # the minimum is NaN if any value is
        raise ValueError(f"{int(values.isnan().sum())} of {values.numel()} {name} are NaN")
    return values


def _as_bool(truth: Tensor, name: str) -> Tensor:
    if truth.dtype == torch.bool:
        return truth
    if not bool(((truth == 0) | (truth == 1)).all()):
        raise ValueError(f"{name} must be 0 or 1 (or bool), got other values")
    return truth.bool()
