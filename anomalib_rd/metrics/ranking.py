"""Exact ranking metrics from counts, in NumPy alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anomalib_rd.metrics.counting import count_below, distinct, rankable


def check_images(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and labels, both (N,), detached, labels as bool; ValueError on a misfit."""
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(
            "scores and labels must both have shape (N,), "
            f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    return _without_nan(scores, "image scores"), _as_bool(labels, "labels")


def check_pixels(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps and masks, both (N, H, W), detached, masks as bool; ValueError on a misfit."""
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(
            "maps and masks must both have shape (N, H, W), "
            f"got {tuple(maps.shape)} and {tuple(masks.shape)}"
        )
    return _without_nan(maps, "pixel scores"), _as_bool(masks, "masks")


def why_undefined(truth: Tensor) -> str | None:
    """Say why metrics against labels (N,) or masks (N, H, W) are NaN; None if they are defined."""
    defects = int(truth.bool().sum())
    why = _why_images_undefined if truth.ndim == 1 else why_pixels_undefined
    return why(len(truth), defects, truth.numel() - defects)


def why_pixels_undefined(images: int, defects: int, normals: int) -> str | None:
    """Say why pixel metrics are NaN, from the counts of images and of pixels of either kind."""
    if images == 0:
        return "there are no test images"
    if defects == normals == 0:
        return "the masks have no pixels"
    if defects == 0:
        return f"none of the {images} masks marks a defect"
    if normals == 0:
        return f"the {images} masks mark every pixel: there is no normal one to tell apart"
    return None


def _why_images_undefined(images: int, defects: int, normals: int) -> str | None:
    if images == 0:
        return "there are no test images"
    if defects == 0:
        return f"all {images} images are normal: there is no defect to find"
    if normals == 0:
        return f"all {images} images are defective: there is no normal one to tell apart"
    return None


def _without_nan(values: Tensor, what: str) -> Tensor:
    values = values.detach()
    if values.numel() and bool(values.min().isnan()):  # the minimum is NaN if any value is
        bad = int(values.isnan().sum())
        raise ValueError(f"{bad} of {values.numel()} {what} are NaN: they cannot be ranked")
    return values


def _as_bool(truth: Tensor, name: str) -> Tensor:
    if truth.dtype == torch.bool:
        return truth
    if not bool(((truth == 0) | (truth == 1)).all()):
        raise ValueError(f"{name} must be 0 or 1 (or bool), got other values")
    return truth.bool()


_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def region_areas(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Area of the 8-connected region of every defect pixel.

    Args:
        mask: (H, W), True where defective.

    Returns:
        (P,) integers for the P defect pixels in row-major order, the order of `scores[mask]`.
        The mean over the regions of the share of a region above a threshold is then the mean
        of `scores[mask] > threshold` weighted by the inverse area.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return np.zeros(0, dtype=np.int64)
    # Defects are small: labelling their bounding box is several times faster.
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(box, structure=_EIGHT_NEIGHBOURS)
    region = labels[box]
    return np.bincount(region)[region]


def region_weights(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Inverse region area of every defect pixel of masks (N, H, W), in the order of `maps[masks]`.

    Regions never reach from one image into the next.
    """
    areas = [region_areas(mask) for mask in masks]
    return 1.0 / np.concatenate([np.zeros(0, dtype=np.int64), *areas])


Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

FPR_LIMITS = {"aupro": 0.3, "aupro_5": 0.05}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Where the K distinct scores of the defects stand among the scores of the normals.

    Only a defect's score can be the best or a counted threshold of these metrics, so the few
    defects are enough: between two of them the true positives stay and the false ones rise.

    Attributes:
        thresholds: (K,) distinct scores of the defects, descending, in a type that holds them.
        hits: (K,) defects scored >= threshold.
        false_alarms: (K,) normals scored >= threshold.
        false_alarms_above: (K,) normals scored > threshold; fewer than `false_alarms` at a tie.
        defects, normals: how many there are.
    """

    prefix: ClassVar[str] = "image"

    thresholds: NDArray[Any]
    hits: Counts
    false_alarms: Counts
    false_alarms_above: Counts
    defects: int
    normals: int

    @property
    def defined(self) -> bool:
        """Whether there are both defects and normals."""
        return self.defects > 0 and self.normals > 0

    def metrics(self) -> dict[str, float]:
        """`<prefix>_auroc`, `<prefix>_ap`, `<prefix>_f1max` in [0, 1]; NaN if undefined."""
        values = (self._auroc(), self._ap(), self._f1max()) if self.defined else (np.nan,) * 3
        names = ("auroc", "ap", "f1max")
        return {f"{self.prefix}_{n}": float(v) for n, v in zip(names, values, strict=True)}

    def curves(self, max_points: int = 1000) -> dict[str, Floats]:
        """Vertices of the ROC and the precision-recall curve, at most `max_points` of each.

        Keys `<prefix>_roc_fpr`, `_roc_tpr`, `_pr_recall`, `_pr_precision`, `_pr_threshold`
        (descending); empty arrays if undefined.
        """
        names = ("roc_fpr", "roc_tpr", "pr_recall", "pr_precision", "pr_threshold")
        if not self.defined:
            return {f"{self.prefix}_{name}": np.zeros(0) for name in names}
        recall, precision = self.hits / self.defects, self._precision()
        along = recall + np.abs(np.diff(precision, prepend=precision[:1])).cumsum()
        keep = _spaced(along, max_points)
        points = (recall[keep], precision[keep], self.thresholds[keep].astype(np.float64))
        curves = (*self._rising(recall, max_points), *points)
        return {f"{self.prefix}_{n}": curve for n, curve in zip(names, curves, strict=True)}

    def _auroc(self) -> float:
        """Share of (defect, normal) pairs in the right order, a tie counting half."""
        defects_at = np.diff(self.hits, prepend=0)
        twice_below = 2 * self.normals - self.false_alarms - self.false_alarms_above
        return float(defects_at @ twice_below / (2 * self.defects * self.normals))

    def _ap(self) -> float:
        """Sum of recall steps times precision: scikit-learn's average_precision_score."""
        return float((np.diff(self.hits, prepend=0) * self._precision()).sum() / self.defects)

    def _f1max(self) -> float:
        return float((2 * self.hits / (self.hits + self.false_alarms + self.defects)).max())

    def _precision(self) -> Floats:
        return self.hits / (self.hits + self.false_alarms)

    def _rising(self, height: Floats, max_points: int) -> tuple[Floats, Floats]:
        """Vertices of a curve over the false positive rate, from (0, 0) to (1, 1).

        Normals between two thresholds make a horizontal segment, a threshold without ties a
        vertical one, and normals tied with defects a diagonal one: two vertices a threshold.
        """
        keep = _spaced(height + self.false_alarms / self.normals, (max_points - 2) // 2)
        alarms = np.column_stack((self.false_alarms_above[keep], self.false_alarms[keep])).ravel()
        before = np.where(keep > 0, height[keep - 1], 0.0)
        heights = np.column_stack((before, height[keep])).ravel()
        fpr = alarms / self.normals
        return np.concatenate(([0.0], fpr, [1.0])), np.concatenate(([0.0], heights, [1.0]))


@dataclass(frozen=True, eq=False)
class PixelRanking(Ranking):
    """The ranking of pixels, which also knows how much of each defect region is found.

    Attributes:
        overlap: (K,) mean over all regions of all images of the share of a region scored
            >= threshold (per-region overlap, PRO).
    """

    prefix: ClassVar[str] = "pixel"

    overlap: Floats

    def metrics(self) -> dict[str, float]:
        """Add `aupro` and `aupro_5` to the ranking metrics: the area under PRO over FPR.

        As MVTec AD defines it (Bergmann et al., IJCV 2021): up to an FPR of 0.3 (0.05),
        interpolated there, divided by that limit; over the whole dataset.
        """
        areas = {
            name: self._aupro(limit) if self.defined else np.nan
            for name, limit in FPR_LIMITS.items()
        }
        return super().metrics() | areas

    def curves(self, max_points: int = 1000) -> dict[str, Floats]:
        """Add `pro_fpr` and `pro`, over the whole range of the FPR, to the ranking curves."""
        nothing = (np.zeros(0), np.zeros(0))
        fpr, pro = self._rising(self.overlap, max_points) if self.defined else nothing
        return super().curves(max_points) | {"pro_fpr": fpr, "pro": pro}

    def _aupro(self, limit: float) -> float:
        """Mean height up to the limit of the curve that `_rising` describes, in its segments."""
        most = limit * self.normals
        above, at = np.minimum(self.false_alarms_above, most), np.minimum(self.false_alarms, most)
        before = np.concatenate(([0.0], self.overlap[:-1]))
        flat = above - np.concatenate(([0.0], at[:-1]))
        area = (before * flat).sum() + self.overlap[-1] * (most - at[-1])
        tie = np.flatnonzero(at > above)
        width, start = at[tie] - above[tie], before[tie]
        # The limit may cut the diagonal: only this share of its rise is under the curve.
        share = width / (self.false_alarms[tie] - self.false_alarms_above[tie])
        area += (width * (start + share * (self.overlap[tie] - start) / 2)).sum()
        return min(float(area / most), 1.0)  # rounding must not make a map better than perfect


def rank_images(scores: Tensor, labels: Tensor) -> Ranking:
    """Rank image scores (N,) with labels (N,) 0/1; ValueError on bad shapes, labels or NaN."""
    scores, labels = check_images(scores, labels)
    thresholds, _, multiplicity = _distinct_defects(scores, labels.cpu().numpy())
    return Ranking(**_count(scores, thresholds, multiplicity))


def rank_pixels(maps: Tensor, masks: Tensor) -> PixelRanking:
    """Rank maps (N, H, W) with masks (N, H, W); ValueError on bad shapes, masks or NaN.

    With up to 4 % of defect pixels, it needs no more memory than float32 maps themselves have.
    """
    maps, masks = check_pixels(maps, masks)
    truths = masks.cpu().numpy()
    with ThreadPoolExecutor(1) as beside:
        labelling = beside.submit(region_weights, truths)
        thresholds, places, multiplicity = _distinct_defects(maps, truths)
        weights = np.bincount(places, labelling.result(), len(thresholds))
    del places, labelling  # the counting needs their memory
    overlap = weights[::-1].cumsum(dtype=np.float64)
    overlap /= overlap[-1:]  # the inverse areas sum to the number of regions
    return PixelRanking(**_count(maps, thresholds, multiplicity), overlap=overlap)


def _distinct_defects(
    values: Tensor, defective: NDArray[np.bool_]
) -> tuple[NDArray[Any], Counts, Counts]:
    """Distinct scores (K,) of the defects, ascending, each defect's place there, their counts."""
    # NumPy finds the few defects far faster than a boolean index of torch does.
    at = torch.from_numpy(np.flatnonzero(defective)).to(values.device)
    return distinct(rankable(values.reshape(-1)[at]))


def _count(values: Tensor, thresholds: NDArray[Any], multiplicity: Counts) -> dict[str, Any]:
    """Count for `Ranking` all values at thresholds (K,), the scores of `multiplicity` defects."""
    below, not_above = count_below(values, thresholds)
    # Counting all values and taking the defects off again saves picking out the normals.
    found = multiplicity.cumsum()
    not_above -= found
    below -= found - multiplicity
    defects = int(multiplicity.sum())
    normals = values.numel() - defects
    return {
        "thresholds": thresholds[::-1],
        "hits": multiplicity[::-1].cumsum(),
        "false_alarms": np.subtract(normals, below, out=below)[::-1],
        "false_alarms_above": np.subtract(normals, not_above, out=not_above)[::-1],
        "defects": defects,
        "normals": normals,
    }


def _spaced(along: Floats, most: int) -> NDArray[np.int64]:
    """Indices of at most `most` points, spaced evenly along a curve, with both ends.

    Args:
        along: (K,) length of the curve up to each point, never falling.
        most: at least 2.
    """
    if len(along) <= most:
        return np.arange(len(along))
    keep = np.unique(np.searchsorted(along, np.linspace(along[0], along[-1], most)))
    keep[-1] = len(along) - 1
    return keep
