"""Ranks of many values among few thresholds, without sorting the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELLS_PER_THRESHOLD = 8
_MOST_COMPARED = 3  # thresholds of one cell that are tried one by one before a binary search


class RankTable:
    """A lookup table from a value's cell to its rank, the number of thresholds below it.

    Most cells hold no threshold and give the rank at once; in the others the value is compared
    with the thresholds, too. A cell is reached by operations that never decrease under IEEE
    rounding, so values of different cells are ordered as their cells are: the ranks are exact.

    Args:
        thresholds: (K,) float32 or float64, distinct, ascending, K > 0; may be infinite.
        most_cells: bounds the table, of 4 bytes a cell.
    """

    def __init__(self, thresholds: NDArray[Any], most_cells: int) -> None:
        # NaN comes last, and no value is above or equal to it.
        self._thresholds = np.append(thresholds, thresholds.dtype.type(np.nan))
        count = max(2, min(_CELLS_PER_THRESHOLD * len(thresholds), most_cells))
        # Long tails need wider cells there: of a few roots take the one that parts most thresholds.
        grids = [_grid(thresholds, count, roots) for roots in range(4)]
        self._grid = max(grids, key=lambda grid: np.count_nonzero(np.diff(grid.cells(thresholds))))
        cells = self._grid.cells(thresholds)
        ranks = np.arange(len(thresholds), dtype=np.int32)
        self._ranks = np.repeat(ranks, np.diff(cells, prepend=-1))
        self._ranks[cells] = ~self._ranks[cells]  # negative: the rank is this or higher

    def rank(self, values: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the ranks of values (n,), and once more of those that equal a threshold."""
        ranks = self._ranks.take(self._grid.cells(values), mode="clip")
        unsure = np.flatnonzero(ranks < 0)
        value, rank = values.take(unsure), ~ranks.take(unsure)
        ties = []
        for _ in range(_MOST_COMPARED):
            threshold = self._thresholds.take(rank)
            ranks[unsure] = rank
            ties.append(rank.take(np.flatnonzero(value == threshold)))
            above = np.flatnonzero(value > threshold)
            unsure, value, rank = unsure.take(above), value.take(above), rank.take(above) + 1
        rank = self._thresholds.searchsorted(value).astype(np.int32)
        ranks[unsure] = rank
        ties.append(rank[value == self._thresholds.take(rank)])
        return ranks, np.concatenate(ties)


@dataclass(frozen=True)
class _Grid:
    """Cells of equal width in a root of the distance from `low`."""

    low: Any
    high: Any
    roots: int
    scale: Any

    def cells(self, values: NDArray[Any]) -> NDArray[np.int32]:
        along = np.clip(values, self.low, self.high)
        along -= self.low
        for _ in range(self.roots):
            np.sqrt(along, out=along)
        along *= self.scale
        return along.astype(np.int32)


def _grid(thresholds: NDArray[Any], count: int, roots: int) -> _Grid:
    limits = np.finfo(thresholds.dtype)
    # A few outliers above share the last cell; what is below all thresholds has the first.
    ends = thresholds[[0, int(0.999 * (len(thresholds) - 1))]]
    low, high = np.clip(ends, limits.min / 8, limits.max / 8)
    low -= (high - low) / count
    span = float(high - low) ** 0.5**roots
    scale = min((count - 1) / max(span, float(limits.tiny)), float(limits.max))
    return _Grid(low, high, roots, thresholds.dtype.type(scale))
