"""Counting true and false positives of all thresholds on torch tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


Counts = NDArray[np.int64]

_MOST_THREADS = 4  # each needs memory
_PER_BLOCK = 1 << 16  # values whose intermediate results stay in a core's cache
_MOST_PER_DEVICE_PIECE = 1 << 20


def rankable(values: Tensor) -> Tensor:
    """Return values in a type that NumPy knows and that holds them exactly."""
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.float() if values.is_floating_point() else values.double()


def distinct(values: Tensor) -> tuple[NDArray[Any], Counts, Counts]:
    """Distinct values (K,) ascending, the place of each of the (D,) values, and their counts (K,).

    Args:
        values: (D,) rankable, on any device.
    """
    if values.is_cuda:
        return distinct_on_device(values)
    return np.unique(values.numpy(), return_inverse=True, return_counts=True)


def distinct_on_device(values: Tensor) -> tuple[NDArray[Any], Counts, Counts]:
    """Do as `distinct` does, on the values' device."""
    found = torch.unique(values, return_inverse=True, return_counts=True)
    thresholds, places, counts = (part.cpu().numpy() for part in found)
    return thresholds, places, counts


def count_below(values: Tensor, thresholds: NDArray[Any]) -> tuple[Counts, Counts]:
    """Count the values below, and the values not above, each threshold.

    Args:
        values: any shape, any device, without NaN.
        thresholds: (K,) of the type of `rankable(values)`, distinct, ascending.

    Returns:
        The numbers (K,) of values < threshold and of values <= threshold.
    """
    values = values.reshape(-1)
    if len(values) == 0 or len(thresholds) == 0:
        below, not_above = np.zeros((2, len(thresholds)), dtype=np.int64)
        return below, not_above
    if values.is_cuda:
        return count_by_search(values, torch.from_numpy(thresholds).to(values.device))
    return _count_by_table(values, thresholds)


def count_by_search(values: Tensor, thresholds: Tensor) -> tuple[Counts, Counts]:
    """Count as `count_below` does, on the device of both, by binary search: what a GPU does best.

    Neither sorts nor copies the values: a search of 2^20 of them at a time bounds the memory.
    """
    counts = torch.zeros(2, len(thresholds) + 1, dtype=torch.int64, device=values.device)
    for piece in values.split(_MOST_PER_DEVICE_PIECE):
        for row, or_equal in enumerate((True, False)):
            ranks = torch.bucketize(rankable(piece), thresholds, out_int32=True, right=or_equal)
            counts[row] += torch.bincount(ranks, minlength=counts.shape[1])
    below, not_above = counts.cumsum(1)[:, :-1].cpu().numpy()
    return below, not_above


def _count_by_table(values: Tensor, thresholds: NDArray[Any]) -> tuple[Counts, Counts]:
    table = RankTable(thresholds, most_cells=len(values) // 6)
    narrow = len(values) < 2**31  # half the memory to jump about in
    counts = np.zeros((2, len(thresholds) + 1), dtype=np.int32 if narrow else np.int64)
    lock = Lock()

    def count(piece: Tensor) -> None:
        own = np.zeros_like(counts[0])  # cores that write to the same memory slow each other down
        ties = []
        for block in piece.split(_PER_BLOCK):
            ranks, tied = table.rank(rankable(block).numpy())
            _tally(own, ranks)
            ties.append(tied)
        with lock:
            counts[0] += own
            _tally(counts[1], np.concatenate(ties))

    threads = min(torch.get_num_threads(), _MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, values.chunk(4 * threads)))
    ranks, ties = counts[:, :-1]
    not_above = ranks.cumsum(dtype=np.int64)
    return not_above - ties, not_above


def _tally(counts: NDArray[Any], ranks: NDArray[np.int32]) -> None:
    """Add 1 at each of the ranks; torch lets other threads run while it does."""
    table = torch.from_numpy(counts)
    table.index_add_(
        0, torch.from_numpy(ranks), torch.ones(1, dtype=table.dtype).expand(len(ranks))
    )
