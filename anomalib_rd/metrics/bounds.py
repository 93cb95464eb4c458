"""Proven bounds of the pixel metrics where scores are known only up to bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomalib_rd.metrics.ranking import FPR_LIMITS
from anomalib_rd.metrics.score_bins import ScoreBins

Floats = NDArray[np.float64]
Bounds = dict[str, tuple[float, float]]


def pixel_bounds(bins: ScoreBins) -> Bounds:
    """Least and greatest value that each of the `pixel_metrics` can have; NaN if undefined.

    Scores of different bins are ordered as their bins; within a bin any order, and any tie, of
    its n normals and d defects is possible. In what follows, T defects and F normals are above a
    bin, and D and N are there in all.
    """
    normals, defects = (c[::-1].astype(np.float64) for c in (bins.normals, bins.defects))
    if not defects.any() or not normals.any():
        names = ("pixel_auroc", "pixel_ap", "pixel_f1max", *FPR_LIMITS)
        return dict.fromkeys(names, (np.nan, np.nan))
    weights = bins.weights[::-1]
    return {
        "pixel_auroc": _auroc(normals, defects),
        "pixel_ap": _ap(normals, defects),
        "pixel_f1max": _f1max(normals, defects),
    } | {name: _aupro(normals, weights, limit) for name, limit in FPR_LIMITS.items()}


def _auroc(normals: Floats, defects: Floats) -> tuple[float, float]:
    """Of the pairs of one bin, from none to all d n may be in the right order."""
    below = normals.sum() - normals.cumsum()
    pairs = defects.sum() * normals.sum()
    least = (defects * below).sum() / pairs
    return _clipped(least, least + (defects * normals).sum() / pairs)


def _ap(normals: Floats, defects: Floats) -> tuple[float, float]:
    """Each defect adds the precision at its score, divided by D.

    The precision at the j-th defect of a bin is least with all n normals above it, where it is
    (T + j) / (T + F + n + j), and greatest with all d defects and no normal, where it is
    (T + d) / (T + F + d). The sum of 1 / (x + j) over j = 1..d is at most log(1 + d / (x + 1/2)),
    since 1 / x is convex (each term is at most its mean over an interval around it).
    """
    at = np.flatnonzero(defects)
    found, alarms = defects.cumsum()[at], normals.cumsum()[at]
    d, n = defects[at], normals[at]
    x = found - d + alarms
    least = (d - alarms * np.log1p(d / (x + 0.5))).sum()
    most = (d * found / (found + alarms - n)).sum()
    return _clipped(least / found[-1], most / found[-1])


def _f1max(normals: Floats, defects: Floats) -> tuple[float, float]:
    """The F1 at the end of a bin is surely had; within it none beats all d defects, no normal."""
    found, alarms, total = defects.cumsum(), normals.cumsum(), defects.sum()
    least = (2 * found / (found + alarms + total)).max()
    most = (2 * found / (found + alarms - normals + total)).max()
    return _clipped(least, most)


def _aupro(normals: Floats, weights: Floats, limit: float) -> tuple[float, float]:
    """The curve rises within a bin: it lies between its heights before and after the bin."""
    most = limit * normals.sum()
    width = np.diff(np.minimum(normals.cumsum(), most), prepend=0)
    height = weights.cumsum()
    before = np.concatenate(([0.0], height[:-1]))
    area = most * height[-1]
    return _clipped((width * before).sum() / area, (width * height).sum() / area)


def _clipped(least: float, most: float) -> tuple[float, float]:
    """Rounding does not leave [0, 1]."""
    return float(np.clip(least, 0, 1)), float(np.clip(most, 0, 1))
