"""Defects ranked among normals once; every ranking metric and curve is read from the counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalib_rd.metrics.checks import check_images, check_pixels
from anomalib_rd.metrics.counting import count_below, rankable
from anomalib_rd.metrics.regions import region_weights

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Where the K distinct scores of the defects stand among the scores of the normals.

    Only a defect's score can be the best or a counted threshold of these metrics, so the few
    defects are enough: between two of them the true positives stay and the false ones rise.

    Attributes:
        thresholds: (K,) distinct scores of the defects, descending.
        hits: (K,) defects scored >= threshold.
        false_alarms: (K,) normals scored >= threshold.
        false_alarms_above: (K,) normals scored > threshold; fewer than `false_alarms` at a tie.
        defects, normals: how many there are.
    """

    prefix: ClassVar[str] = "image"

    thresholds: Floats
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
        fpr, tpr = _thin(max_points, *self._rising(self.hits / max(self.defects, 1)))
        recall, precision, threshold = _thin(
            max_points, self.hits / max(self.defects, 1), self._precision(), self.thresholds
        )
        curves = {
            "roc_fpr": fpr,
            "roc_tpr": tpr,
            "pr_recall": recall,
            "pr_precision": precision,
            "pr_threshold": threshold,
        }
        return {f"{self.prefix}_{n}": v if self.defined else v[:0] for n, v in curves.items()}

    def _auroc(self) -> float:
        """Share of (defect, normal) pairs in the right order, a tie counting half."""
        defects_at = np.diff(self.hits, prepend=0)
        twice_below = 2 * self.normals - self.false_alarms - self.false_alarms_above
        return float(defects_at @ twice_below / (2 * self.defects * self.normals))

    def _ap(self) -> float:
        """Sum of recall steps times precision: scikit-learn's average_precision_score."""
        return float(np.diff(self.hits, prepend=0) @ self._precision() / self.defects)

    def _f1max(self) -> float:
        return float((2 * self.hits / (self.hits + self.false_alarms + self.defects)).max())

    def _precision(self) -> Floats:
        return self.hits / (self.hits + self.false_alarms)

    def _rising(self, height: Floats) -> tuple[Floats, Floats]:
        """Vertices (2K + 2,) of a curve over the false positive rate, from (0, 0) to (1, 1).

        Normals between two thresholds make a horizontal segment, a threshold without ties a
        vertical one, and normals tied with defects a diagonal one.
        """
        before = np.concatenate(([0.0], height[:-1]))[: len(height)]
        alarms = np.column_stack((self.false_alarms_above, self.false_alarms)).ravel()
        heights = np.column_stack((before, height)).ravel()
        fpr = alarms / max(self.normals, 1)
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
        limits = {"aupro": 0.3, "aupro_5": 0.05}
        curve = self._rising(self.overlap)
        areas = {
            name: _area_up_to(limit, *curve) / limit if self.defined else np.nan
            for name, limit in limits.items()
        }
        return super().metrics() | areas

    def curves(self, max_points: int = 1000) -> dict[str, Floats]:
        """Add `pro_fpr` and `pro`, over the whole range of the FPR, to the ranking curves."""
        fpr, pro = _thin(max_points, *self._rising(self.overlap))
        keep = slice(None) if self.defined else slice(0)
        return super().curves(max_points) | {"pro_fpr": fpr[keep], "pro": pro[keep]}


def rank_images(scores: Tensor, labels: Tensor) -> Ranking:
    """Rank image scores (N,) with labels (N,) 0/1; ValueError on bad shapes, labels or NaN."""
    ranking, _ = _rank(*check_images(scores, labels))
    return Ranking(**ranking)


def rank_pixels(maps: Tensor, masks: Tensor) -> PixelRanking:
    """Rank maps (N, H, W) with masks (N, H, W); ValueError on bad shapes, masks or NaN.

    Beside the maps, it holds half a copy of them at a time and arrays of the defect pixels' size.
    """
    maps, masks = check_pixels(maps, masks)
    ranking, positions = _rank(maps, masks)
    weights = np.bincount(positions, region_weights(masks.cpu().numpy()), len(ranking["hits"]))
    overlap = weights[::-1].cumsum()
    # The inverse areas sum to the number of regions.
    return PixelRanking(**ranking, overlap=overlap / overlap[-1:])


def _rank(values: Tensor, defective: Tensor) -> tuple[dict[str, Any], NDArray[np.intp]]:
    """Count for `Ranking`, and for each defect its place among the ascending thresholds."""
    # NumPy finds the few defects far faster than a boolean index of torch does.
    places = torch.from_numpy(np.flatnonzero(defective.cpu().numpy()))
    defects = rankable(values.reshape(-1)[places.to(values.device)]).cpu().numpy()
    thresholds, positions, multiplicity = np.unique(
        defects, return_inverse=True, return_counts=True
    )
    # Counting all values and taking the defects off again saves picking out the normals.
    below, not_above = count_below(values, thresholds)
    normals = values.numel() - len(defects)
    defects_not_above = multiplicity.cumsum()
    ranking = {
        "thresholds": thresholds[::-1].astype(np.float64),
        "hits": multiplicity[::-1].cumsum(),
        "false_alarms": (normals - below + defects_not_above - multiplicity)[::-1],
        "false_alarms_above": (normals - not_above + defects_not_above)[::-1],
        "defects": len(defects),
        "normals": normals,
    }
    return ranking, positions


def _area_up_to(limit: float, x: Floats, y: Floats) -> float:
    """Area under the polyline up to x = limit, with y interpolated there."""
    inside = int(np.searchsorted(x, limit, "right"))
    at_limit = np.interp(limit, x, y)
    area = np.trapezoid(np.append(y[:inside], at_limit), np.append(x[:inside], limit))
    return min(float(area), limit)  # rounding must not make a perfect map better than perfect


def _thin(max_points: int, x: Floats, y: Floats, *more: Floats) -> tuple[Floats, ...]:
    """Keep at most `max_points` vertices, spaced evenly along the curve, with both ends."""
    if len(x) <= max_points:
        return (x, y, *more)
    along = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
    keep = np.unique(np.searchsorted(along, np.linspace(0.0, along[-1], max_points)))
    keep[-1] = len(x) - 1
    return tuple(values[keep] for values in (x, y, *more))
