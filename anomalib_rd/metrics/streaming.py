"""Pixel metrics in bounded memory, with bounds of their error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from anomalib_rd.metrics.ranking import (
    FPR_LIMITS,
    PixelRanking,
    check_pixels,
    region_weights,
    why_pixels_undefined,
)

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


_MAGNITUDE = np.int32(0x7FFFFFFF)
_KEY_OF_MINUS_INFINITY = np.int32(-0x7F800001)


class ScoreBins(NamedTuple):
    """Pixels counted by the bin of their score.

    A float32's key is its bits as an integer, turned so that keys are ordered as the scores are.
    A bin is named by its least key. With a shift of s its keys agree in all but their s lowest
    bits, so its scores differ by less than 2^(s - 23) of their size, unless they are next to
    zero; with a shift of 0 it is one score.

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
    def of_maps(cls, maps: NDArray[np.float32], masks: NDArray[np.bool_], shift: int) -> ScoreBins:
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

    def merged(self, shift: int, most: int) -> tuple[ScoreBins, int]:
        """Add up bins of the same keys, in any order, with the least shift that leaves few enough.

        Args:
            shift: what the shift is at least.
            most: number of bins that it must leave at most.
        """
        order = np.argsort(self.keys, kind="stable")  # fast: the keys are a few ordered runs
        keys = self.keys[order] >> shift << shift
        while np.count_nonzero(np.diff(keys)) >= most:
            shift += 1
            keys = keys >> shift << shift
        starts = _starts(keys)
        counts = (np.add.reduceat(column[order], starts) for column in self[1:])
        return ScoreBins(keys[starts], *counts), shift

    def ranking(self) -> PixelRanking:
        """Rank with the scores of a bin taken as equal: exact if each bin is one score."""
        down = slice(None, None, -1)
        at = np.flatnonzero(self.defects[down])
        found, alarms = self.defects[down].cumsum(), self.normals[down].cumsum()
        overlap = self.weights[down].cumsum()[at]
        return PixelRanking(
            thresholds=_scores(self.keys[down][at]),
            hits=found[at],
            false_alarms=alarms[at],
            false_alarms_above=(alarms - self.normals[down])[at],
            overlap=overlap / overlap[-1:],
            defects=int(self.defects.sum()),
            normals=int(self.normals.sum()),
        )


def _keys(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    bits = (scores + np.float32(0)).view(np.int32)  # + 0 turns -0 into 0, its equal
    return bits ^ ((bits >> 31) & _MAGNITUDE)


def _scores(keys: NDArray[np.int32]) -> NDArray[np.float32]:
    """The least score of each bin; beneath -infinity there is none."""
    keys = np.maximum(keys, _KEY_OF_MINUS_INFINITY)
    return (keys ^ ((keys >> 31) & _MAGNITUDE)).view(np.float32)


def _starts(ordered: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where each run of equal keys begins."""
    return np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))


LEAST_BINS = 64
_COLUMNS = dict(zip(ScoreBins._fields, (np.int32, np.int64, np.int64, np.float64), strict=True))
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


class StreamedPixelMetrics(Metric):
    """`pixel_metrics` of maps (B, H, W) and masks (B, H, W) that need not all be kept.

    Pixels are counted by their score, in at most `max_bins` bins of 28 bytes, whatever the number
    of images. While there are no more distinct scores than bins, all is exact; when there are,
    the lowest bit of the scores' float32 is dropped, then the next. The values are the middle of
    `bounds`, between which the exact ones lie: closer than 1e-5 with 2^20 bins, as a rule.
    Neither batches nor their order nor the number of processes changes the result.

    Args:
        max_bins: at least 64; ValueError otherwise.
    """

    full_state_update = True  # forward() must merge bins too
    keys: list[Tensor]
    normals: list[Tensor]
    defects: list[Tensor]
    weights: list[Tensor]
    shift: Tensor
    images: Tensor
    _ranking: PixelRanking
    _bounds: Bounds
    _images: int

    def __init__(self, max_bins: int = 2**20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_bins < LEAST_BINS:
            raise ValueError(f"max_bins must be at least {LEAST_BINS}, got {max_bins}")
        self.max_bins = max_bins
        for name in _COLUMNS:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("shift", default=torch.tensor(0), dist_reduce_fx="max")
        self.add_state("images", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Count a batch; ValueError on bad shapes, NaN, or maps of a type finer than float32."""
        maps, masks = check_pixels(maps, masks)
        if maps.dtype not in _TYPES:
            raise ValueError(
                f"maps must be float32, float16 or bfloat16 to be streamed, got {maps.dtype}: "
                "rounding others would break the bounds"
            )
        scores = maps.float().cpu().numpy()
        self._keep(ScoreBins.of_maps(scores, masks.cpu().numpy(), int(self.shift)))
        self.images += len(maps)
        if sum(map(len, self.keys)) > self.max_bins:
            bins = self._gathered()
            for name in _COLUMNS:
                getattr(self, name).clear()  # now: merging needs memory
            bins, shift = bins.merged(int(self.shift), self.max_bins)
            self._keep(bins)
            self.shift.fill_(shift)

    def compute(self) -> dict[str, float]:
        """Return the metrics of everything seen since the last reset."""
        bins, shift = self._gathered().merged(int(self.shift), self.max_bins)
        self._ranking = bins.ranking()
        self._images = int(self.images)
        exact = {name: (value, value) for name, value in self._ranking.metrics().items()}
        self._bounds = exact if shift == 0 else pixel_bounds(bins)
        return {name: (least + most) / 2 for name, (least, most) in self._bounds.items()}

    def bounds(self) -> Bounds:
        """Least and greatest value that each exact metric can have: equal while all is exact."""
        self.compute()  # cached by torchmetrics unless batches came since
        return self._bounds

    def curves(self, max_points: int = 1000) -> dict[str, NDArray[np.float64]]:
        """Return `PixelRanking.curves`, the scores of a bin taken as equal to its least one."""
        self.compute()
        return self._ranking.curves(max_points)

    def why_undefined(self) -> str | None:
        """Say why the metrics are NaN; None if they are defined."""
        self.compute()
        return why_pixels_undefined(self._images, self._ranking.defects, self._ranking.normals)

    def _keep(self, bins: ScoreBins) -> None:
        for name, column in bins._asdict().items():
            getattr(self, name).append(torch.from_numpy(column).to(self.device))

    def _gathered(self) -> ScoreBins:
        """Put together the bins of all batches, and in `compute` of all processes, as they are."""
        return ScoreBins(*(_joined(getattr(self, name), type_) for name, type_ in _COLUMNS.items()))


def _joined(state: list[Tensor] | Tensor, dtype: type) -> NDArray[Any]:
    """Concatenate a state, which is a list of batches, or one tensor if processes are gathered."""
    parts = state if isinstance(state, list) else [state]
    return np.concatenate([np.zeros(0, dtype), *(part.cpu().numpy() for part in parts)])
