"""Pixel metrics in bounded memory, with error bounds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from anomalib_rd.metrics.functional import check_pixels
from anomalib_rd.metrics.ranking import FPR_LIMITS, Floats, PixelRanking, region_weights

Bounds = dict[str, tuple[float, float]]


def pixel_bounds(bins: ScoreBins) -> Bounds:
    """Lower and upper bound of each of the `pixel_metrics`; NaN if undefined.

    Scores of different bins are ordered as their bins; within a bin any order, and any tie, of
    its n normals and d defects is possible. In the docstrings below, T of D defects and F of N
    normals are above a bin.
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
    """Between 0 and d n pairs of a bin are in the right order."""
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
    tp, fp = defects.cumsum()[at], normals.cumsum()[at]
    d, n = defects[at], normals[at]
    x = tp - d + fp
    least = (d - fp * np.log1p(d / (x + 0.5))).sum()
    most = (d * tp / (tp + fp - n)).sum()
    return _clipped(least / tp[-1], most / tp[-1])


def _f1max(normals: Floats, defects: Floats) -> tuple[float, float]:
    """Lower: the F1 at the end of a bin. Upper: the F1 with all its d defects and no normal."""
    tp, fp, total = defects.cumsum(), normals.cumsum(), defects.sum()
    least = (2 * tp / (tp + fp + total)).max()
    most = (2 * tp / (tp + fp - normals + total)).max()
    return _clipped(least, most)


def _aupro(normals: Floats, weights: Floats, limit: float) -> tuple[float, float]:
    """Within a bin the curve lies between its heights before and after the bin."""
    max_fp = limit * normals.sum()
    width = np.diff(np.minimum(normals.cumsum(), max_fp), prepend=0)
    height = weights.cumsum()
    before = np.concatenate(([0.0], height[:-1]))
    area = max_fp * height[-1]
    return _clipped((width * before).sum() / area, (width * height).sum() / area)


def _clipped(least: float, most: float) -> tuple[float, float]:
    return float(np.clip(least, 0, 1)), float(np.clip(most, 0, 1))


_MAGNITUDE = np.int32(0x7FFFFFFF)
_KEY_OF_MINUS_INFINITY = np.int32(-0x7F800001)


class ScoreBins(NamedTuple):
    """Pixel counts by bins of their score.

    The key of a float32 is its bits as an integer, mapped so that keys are ordered as the scores.
    A bin is identified by its least key. With a shift of s, keys of a bin agree in all but the s
    lowest bits, so its scores differ by less than 2^(s - 23) relative to their size, except next
    to zero; with a shift of 0 a bin is a single score.

    Attributes:
        keys: (K,) int32, distinct, ascending.
        normals: (K,) int64.
        defects: (K,) int64.
        weights: (K,) float64, sum of the inverse areas of the defects' regions.
    """

    keys: NDArray[np.int32]
    normals: NDArray[np.int64]
    defects: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def from_maps(
        cls, maps: NDArray[np.float32], masks: NDArray[np.bool_], shift: int
    ) -> ScoreBins:
        """Count the pixels of maps and masks, both (N, H, W)."""
        all_keys = _keys(maps) >> shift << shift
        defect_keys = all_keys.ravel()[np.flatnonzero(masks)]
        all_keys = np.sort(all_keys, axis=None)
        starts = _starts(all_keys)
        keys, pixels = all_keys[starts], np.diff(starts, append=len(all_keys))
        bins = np.searchsorted(keys, defect_keys)
        defects = np.bincount(bins, minlength=len(keys))
        weights = np.bincount(bins, region_weights(masks), len(keys)).astype(np.float64)
        return cls(keys, pixels - defects, defects, weights)

    def merge(self, shift: int, max_bins: int) -> tuple[ScoreBins, int]:
        """Merge bins, in any order, to <= `max_bins` by the smallest possible shift >= `shift`."""
        order = np.argsort(self.keys, kind="stable")  # fast: the keys are a few ordered runs
        keys = self.keys[order] >> shift << shift
        while np.count_nonzero(np.diff(keys)) >= max_bins:
            shift += 1
            keys = keys >> shift << shift
        starts = _starts(keys)
        counts = (np.add.reduceat(column[order], starts) for column in self[1:])
        return ScoreBins(keys[starts], *counts), shift

    def ranking(self) -> PixelRanking:
        """Rank with all scores of a bin as ties; exact if each bin is one score."""
        down = slice(None, None, -1)
        at = np.flatnonzero(self.defects[down])
        tp, fp = self.defects[down].cumsum(), self.normals[down].cumsum()
        overlap = self.weights[down].cumsum()[at]
        return PixelRanking(
            thresholds=_scores(self.keys[down][at]),
            tp=tp[at],
            fp=fp[at],
            fp_strict=(fp - self.normals[down])[at],
            overlap=overlap / overlap[-1:],
            defects=int(self.defects.sum()),
            normals=int(self.normals.sum()),
        )


def _keys(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    bits = (scores + np.float32(0)).view(np.int32)  # + 0 turns -0 into 0, its equal
    return bits ^ ((bits >> 31) & _MAGNITUDE)


def _scores(keys: NDArray[np.int32]) -> NDArray[np.float32]:
    """The least score of each bin, clipped at -infinity."""
    keys = np.maximum(keys, _KEY_OF_MINUS_INFINITY)
    return (keys ^ ((keys >> 31) & _MAGNITUDE)).view(np.float32)


def _starts(ordered: NDArray[np.int32]) -> NDArray[np.int64]:
    """Start index of each run of equal keys."""
    return np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))


MIN_BINS = 64
_COLUMNS = dict(zip(ScoreBins._fields, (np.int32, np.int64, np.int64, np.float64), strict=True))
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


class StreamedPixelMetrics(Metric):
    """`pixel_metrics` of maps (B, H, W) and masks (B, H, W) in bounded memory.

    Pixels are counted by score in at most `max_bins` bins of 28 bytes, for any number of images.
    The result is exact as long as there are at most `max_bins` distinct scores; beyond that the
    lowest bits of the float32 scores are dropped one by one. The values are the midpoints of
    `bounds`, which contain the exact values, typically within 1e-5 with 2^20 bins. The result
    does not depend on batches, their order or the number of processes.

    Args:
        max_bins: at least 64; ValueError otherwise.
    """

    full_state_update = True  # forward() must merge bins too
    keys: list[Tensor]
    normals: list[Tensor]
    defects: list[Tensor]
    weights: list[Tensor]
    shift: Tensor
    _ranking: PixelRanking
    _bounds: Bounds

    def __init__(self, max_bins: int = 2**20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_bins < MIN_BINS:
            raise ValueError(f"max_bins must be at least {MIN_BINS}, got {max_bins}")
        self.max_bins = max_bins
        for name in _COLUMNS:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("shift", default=torch.tensor(0), dist_reduce_fx="max")

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Count a batch; ValueError on bad shapes, NaN, or maps of a type finer than float32."""
        maps, masks = check_pixels(maps, masks)
        if maps.dtype not in _TYPES:
            raise ValueError(
                f"maps must be float32, float16 or bfloat16 to be streamed, got {maps.dtype}"
            )
        scores = maps.float().cpu().numpy()
        self._append(ScoreBins.from_maps(scores, masks.cpu().numpy(), int(self.shift)))
        if sum(map(len, self.keys)) > self.max_bins:
            bins = self._all_bins()
            for name in _COLUMNS:
                getattr(self, name).clear()  # merging needs their memory
            bins, shift = bins.merge(int(self.shift), self.max_bins)
            self._append(bins)
            self.shift.fill_(shift)

    def compute(self) -> dict[str, float]:
        """Metrics of all batches since the last reset."""
        bins, shift = self._all_bins().merge(int(self.shift), self.max_bins)
        self._ranking = bins.ranking()
        exact = {name: (value, value) for name, value in self._ranking.metrics().items()}
        self._bounds = exact if shift == 0 else pixel_bounds(bins)
        return {name: (least + most) / 2 for name, (least, most) in self._bounds.items()}

    def bounds(self) -> Bounds:
        """Lower and upper bound of each exact metric; equal if the result is exact."""
        self.compute()  # cached by torchmetrics until the next update
        return self._bounds

    def curves(self, max_points: int = 1000) -> dict[str, NDArray[np.float64]]:
        """`PixelRanking.curves` with every score replaced by the least score of its bin."""
        self.compute()
        return self._ranking.curves(max_points)

    def why_undefined(self) -> str | None:
        """Why the metrics are NaN; None if they are defined."""
        self.compute()
        return self._ranking.why_undefined()

    def _append(self, bins: ScoreBins) -> None:
        for name, column in bins._asdict().items():
            getattr(self, name).append(torch.from_numpy(column).to(self.device))

    def _all_bins(self) -> ScoreBins:
        """Concatenate the bins of all batches (in `compute`, of all processes), unmerged."""

        def column(name: str, dtype: type) -> NDArray[Any]:
            state = getattr(self, name)  # one tensor if torchmetrics gathered the processes
            parts = state if isinstance(state, list) else [state]
            return np.concatenate([np.zeros(0, dtype), *(part.cpu().numpy() for part in parts)])

        return ScoreBins(*(column(name, dtype) for name, dtype in _COLUMNS.items()))
