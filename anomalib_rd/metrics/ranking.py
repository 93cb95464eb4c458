"""Exact ranking metrics from true and false positive counts, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

FPR_LIMITS = {"aupro": 0.3, "aupro_5": 0.05}
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class Ranking:
    """True and false positives at the K distinct scores of the defects.

    These thresholds suffice: between two scores of defects the true positives are constant and
    the false positives only increase.

    Attributes:
        thresholds: (K,) distinct scores of the defects, descending.
        tp: (K,) defects scored >= threshold.
        fp: (K,) normals scored >= threshold.
        fp_strict: (K,) normals scored > threshold; fewer than `fp` at a tie.
        defects, normals: total counts.
    """

    prefix: ClassVar[str] = "image"

    thresholds: NDArray[Any]
    tp: Counts
    fp: Counts
    fp_strict: Counts
    defects: int
    normals: int

    @classmethod
    def from_counts(
        cls,
        thresholds: NDArray[Any],
        defects_at: Counts,
        below: Counts,
        not_above: Counts,
        normals: int,
        **fields: Any,
    ) -> Self:
        """Build a ranking from counts (K,) at ascending thresholds (K,).

        Args:
            thresholds: distinct scores of the defects.
            defects_at: defects scored exactly at each threshold.
            below, not_above: normals scored < and <= each threshold.
            normals: total count.
            **fields: of a subclass.
        """
        return cls(
            thresholds=thresholds[::-1],
            tp=defects_at[::-1].cumsum(),
            fp=(normals - below)[::-1],
            fp_strict=(normals - not_above)[::-1],
            defects=int(defects_at.sum()),
            normals=normals,
            **fields,
        )

    @property
    def defined(self) -> bool:
        """Whether there are both defects and normals."""
        return self.defects > 0 and self.normals > 0

    def why_undefined(self) -> str | None:
        """Why the metrics are NaN; None if they are defined."""
        if self.defined:
            return None
        if self.defects:
            return f"all {self.defects} images are defective: there is no normal one"
        if self.normals:
            return f"all {self.normals} images are normal: there is no defect"
        return "there are no test images"

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
        recall, precision = self.tp / self.defects, self._precision()
        length = recall + np.abs(np.diff(precision, prepend=precision[:1])).cumsum()
        keep = _evenly_spaced(length, max_points)
        points = (recall[keep], precision[keep], self.thresholds[keep].astype(np.float64))
        curves = (*self._curve_over_fpr(recall, max_points), *points)
        return {f"{self.prefix}_{n}": curve for n, curve in zip(names, curves, strict=True)}

    def _auroc(self) -> float:
        """Share of (defect, normal) pairs in the right order, a tie counting half."""
        defects_at = np.diff(self.tp, prepend=0)
        twice_below = 2 * self.normals - self.fp - self.fp_strict
        return float(defects_at @ twice_below / (2 * self.defects * self.normals))

    def _ap(self) -> float:
        """Sum of recall steps times precision: scikit-learn's average_precision_score."""
        return float((np.diff(self.tp, prepend=0) * self._precision()).sum() / self.defects)

    def _f1(self) -> Floats:
        return 2 * self.tp / (self.tp + self.fp + self.defects)

    def _f1max(self) -> float:
        return float(self._f1().max())

    def _precision(self) -> Floats:
        return self.tp / (self.tp + self.fp)

    def _curve_over_fpr(self, height: Floats, max_points: int) -> tuple[Floats, Floats]:
        """Vertices of a curve over the false positive rate, from (0, 0) to (1, 1).

        Each threshold has two vertices: normals between thresholds are a horizontal segment, a
        threshold without ties is a vertical one, and normals tied with defects are a diagonal.
        """
        keep = _evenly_spaced(height + self.fp / self.normals, (max_points - 2) // 2)
        fp = np.column_stack((self.fp_strict[keep], self.fp[keep])).ravel()
        before = np.where(keep > 0, height[keep - 1], 0.0)
        heights = np.column_stack((before, height[keep])).ravel()
        fpr = fp / self.normals
        return np.concatenate(([0.0], fpr, [1.0])), np.concatenate(([0.0], heights, [1.0]))


@dataclass(frozen=True, eq=False)
class PixelRanking(Ranking):
    """The ranking of pixels, with the overlap of each defect region.

    Attributes:
        overlap: (K,) mean over all regions of all images of the share of a region scored
            >= threshold (per-region overlap, PRO).
    """

    prefix: ClassVar[str] = "pixel"

    overlap: Floats

    def why_undefined(self) -> str | None:
        """Why the metrics are NaN; None if they are defined."""
        if self.defined:
            return None
        if self.defects:
            return "the masks mark every pixel as defective: there is no normal one"
        if self.normals:
            return "no mask marks a defect"
        return "there are no test images with pixels"

    def metrics(self) -> dict[str, float]:
        """Add `aupro` and `aupro_5` to the ranking metrics: the area under PRO over FPR.

        As defined for MVTec AD (Bergmann et al., IJCV 2021): over all images, up to an FPR of 0.3
        (0.05), with interpolation at this limit, divided by the limit.
        """
        areas = {
            name: self._aupro(limit) if self.defined else np.nan
            for name, limit in FPR_LIMITS.items()
        }
        return super().metrics() | areas

    def curves(self, max_points: int = 1000) -> dict[str, Floats]:
        """Add `pro_fpr` and `pro`, over the full range of the FPR, to the ranking curves."""
        fpr = pro = np.zeros(0)
        if self.defined:
            fpr, pro = self._curve_over_fpr(self.overlap, max_points)
        return super().curves(max_points) | {"pro_fpr": fpr, "pro": pro}

    def _aupro(self, limit: float) -> float:
        """Mean height of the curve of `_curve_over_fpr` up to the limit, segment by segment."""
        max_fp = limit * self.normals
        strict, fp = np.minimum(self.fp_strict, max_fp), np.minimum(self.fp, max_fp)
        before = np.concatenate(([0.0], self.overlap[:-1]))
        flat = strict - np.concatenate(([0.0], fp[:-1]))
        area = (before * flat).sum() + self.overlap[-1] * (max_fp - fp[-1])
        tie = np.flatnonzero(fp > strict)
        width, start = fp[tie] - strict[tie], before[tie]
        # The limit may cut the diagonal: only this share of its rise is under the curve.
        share = width / (self.fp[tie] - self.fp_strict[tie])
        area += (width * (start + share * (self.overlap[tie] - start) / 2)).sum()
        return min(float(area / max_fp), 1.0)  # rounding must not exceed a perfect map's 1


def rank_scores(scores: NDArray[Any], labels: NDArray[np.bool_]) -> Ranking:
    """Rank image scores (N,) without NaN, with labels (N,), True for a defect."""
    thresholds, counts = np.unique(scores[labels], return_counts=True)
    normals = np.sort(scores[~labels])
    below, not_above = (np.searchsorted(normals, thresholds, side) for side in ("left", "right"))
    return Ranking.from_counts(thresholds, counts, below, not_above, len(normals))


def best_f1_threshold(ranking: Ranking) -> float:
    """Threshold (score >= threshold is a defect) that maximises F1; NaN without defects.

    At a tie it is the highest one.
    """
    return float(ranking.thresholds[ranking._f1().argmax()]) if ranking.defects else np.nan


def best_f1_threshold_of_curve(curves: Mapping[str, Floats], prefix: str = "pixel") -> float:
    """`best_f1_threshold` from the thinned `Ranking.curves`, for drawing; inf if undefined."""
    recall, precision = curves[f"{prefix}_pr_recall"], curves[f"{prefix}_pr_precision"]
    if not len(recall):
        return float("inf")
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(curves[f"{prefix}_pr_threshold"][f1.argmax()])


def region_areas(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Area of the 8-connected region of every defect pixel.

    Args:
        mask: (H, W), True where defective.

    Returns:
        (P,) integers for the P defect pixels in row-major order, the order of `scores[mask]`.
        Weighted by the inverse area, the mean of `scores[mask] > threshold` is the PRO: the mean
        over the regions of the share above the threshold.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return np.zeros(0, dtype=np.int64)
    # Defects are small: labelling their bounding box is several times faster.
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(box, structure=_EIGHT_NEIGHBOURS)
    region = labels[box]
    return np.bincount(region)[region]


def region_weights(masks: NDArray[np.bool_]) -> Floats:
    """Inverse region area of every defect pixel of masks (N, H, W), in order of `maps[masks]`."""
    areas = [region_areas(mask) for mask in masks]
    return 1.0 / np.concatenate([np.zeros(0, dtype=np.int64), *areas])


def _evenly_spaced(length: Floats, max_points: int) -> NDArray[np.int64]:
    """Indices of at most `max_points` (>= 2) evenly spaced points of a curve, with both ends.

    `length` (K,) is the length of the curve up to each point, never decreasing.
    """
    if len(length) <= max_points:
        return np.arange(len(length))
    keep = np.unique(np.searchsorted(length, np.linspace(length[0], length[-1], max_points)))
    keep[-1] = len(length) - 1
    return keep
