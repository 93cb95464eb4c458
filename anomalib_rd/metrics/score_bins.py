"""Counts of pixels by score, in a bounded number of bins, for scores that cannot all be kept."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_rd.metrics.ranking import PixelRanking
from anomalib_rd.metrics.regions import region_weights

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
