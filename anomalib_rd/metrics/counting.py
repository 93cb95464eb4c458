"""Count a tensor's values below each of many thresholds, exactly and without sorting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalib_rd.metrics.ranking import Counts

_CELLS_PER_THRESHOLD = 8
_MAX_COMPARISONS = 3  # thresholds of one cell that are compared one by one before a binary search
_MAX_THREADS = 4  # each needs memory
_BLOCK = 1 << 16  # values whose intermediate results fit a core's cache
_DEVICE_CHUNK = 1 << 20


def to_rankable(values: Tensor) -> Tensor:
    """Convert values, exactly, to a type that NumPy supports."""
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.float() if values.is_floating_point() else values.double()


def distinct(values: Tensor) -> tuple[NDArray[Any], Counts, Counts]:
    """Distinct values (K,) ascending, the index of each value (D,) in them, their counts (K,).

    The values (D,) are `to_rankable`, on any device.
    """
    if values.is_cuda:
        return distinct_by_torch(values)
    return np.unique(values.numpy(), return_inverse=True, return_counts=True)


def distinct_by_torch(values: Tensor) -> tuple[NDArray[Any], Counts, Counts]:
    """`distinct`, computed on the values' device."""
    parts = torch.unique(values, return_inverse=True, return_counts=True)
    thresholds, indices, counts = (part.cpu().numpy() for part in parts)
    return thresholds, indices, counts


def count_below(values: Tensor, thresholds: NDArray[Any]) -> tuple[Counts, Counts]:
    """Number of values < and <= each threshold, both (K,).

    Args:
        values: any shape, any device, without NaN.
        thresholds: (K,) of the type of `to_rankable(values)`, distinct, ascending.
    """
    values = values.reshape(-1)
    if len(values) == 0 or len(thresholds) == 0:
        below, not_above = np.zeros((2, len(thresholds)), dtype=np.int64)
        return below, not_above
    if values.is_cuda:
        return count_by_bucketize(values, torch.from_numpy(thresholds).to(values.device))
    return _count_by_table(values, thresholds)


def count_by_bucketize(values: Tensor, thresholds: Tensor) -> tuple[Counts, Counts]:
    """`count_below` by binary search on the device, in chunks; fastest on a GPU."""
    counts = torch.zeros(2, len(thresholds) + 1, dtype=torch.int64, device=values.device)
    for chunk in values.split(_DEVICE_CHUNK):
        for row, right in enumerate((True, False)):
            ranks = torch.bucketize(to_rankable(chunk), thresholds, out_int32=True, right=right)
            counts[row] += torch.bincount(ranks, minlength=counts.shape[1])
    below, not_above = counts.cumsum(1)[:, :-1].cpu().numpy()
    return below, not_above


def _count_by_table(values: Tensor, thresholds: NDArray[Any]) -> tuple[Counts, Counts]:
    table = RankTable(thresholds, max_cells=len(values) // 6)
    dtype = np.int32 if len(values) < 2**31 else np.int64  # half the memory where it suffices
    counts = np.zeros((2, len(thresholds) + 1), dtype=dtype)
    lock = Lock()

    def count(chunk: Tensor) -> None:
        own = np.zeros_like(counts[0])  # cores that write to shared memory slow each other down
        ties = []
        for block in chunk.split(_BLOCK):
            ranks, tied = table.rank(to_rankable(block).numpy())
            _add_at(own, ranks)
            ties.append(tied)
        with lock:
            counts[0] += own
            _add_at(counts[1], np.concatenate(ties))

    threads = min(torch.get_num_threads(), _MAX_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, values.chunk(4 * threads)))
    ranks, ties = counts[:, :-1]
    not_above = ranks.cumsum(dtype=np.int64)
    return not_above - ties, not_above


def _add_at(counts: NDArray[Any], ranks: NDArray[np.int32]) -> None:
    """Add 1 at each of the ranks; torch releases the interpreter lock meanwhile."""
    table = torch.from_numpy(counts)
    ones = torch.ones(1, dtype=table.dtype).expand(len(ranks))
    table.index_add_(0, torch.from_numpy(ranks), ones)


class RankTable:
    """Lookup table from a value's cell to its rank, the number of thresholds below the value.

    In most cells there is no threshold, and the cell determines the rank; in the others the value
    is compared with the thresholds. The cell is a monotonic function of the value even under IEEE
    rounding, so the ranks are exact.

    Args:
        thresholds: (K,) float32 or float64, distinct, ascending, K > 0; may be infinite.
        max_cells: limits the table, which needs 4 bytes per cell.
    """

    def __init__(self, thresholds: NDArray[Any], max_cells: int) -> None:
        # NaN comes last, and no value is above or equal to it.
        self._thresholds = np.append(thresholds, thresholds.dtype.type(np.nan))
        count = max(2, min(_CELLS_PER_THRESHOLD * len(thresholds), max_cells))
        # Long tails need wider cells: take the root whose cells separate most thresholds.
        grids = [_make_grid(thresholds, count, roots) for roots in range(4)]
        self._grid = max(grids, key=lambda grid: np.count_nonzero(np.diff(grid.cells(thresholds))))
        cells = self._grid.cells(thresholds)
        ranks = np.arange(len(thresholds), dtype=np.int32)
        self._ranks = np.repeat(ranks, np.diff(cells, prepend=-1))
        self._ranks[cells] = ~self._ranks[cells]  # negative: the rank is this or higher

    def rank(self, values: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ranks of values (n,), and separately the ranks of those that equal a threshold."""
        ranks = self._ranks.take(self._grid.cells(values), mode="clip")
        unsure = np.flatnonzero(ranks < 0)
        value, rank = values.take(unsure), ~ranks.take(unsure)
        ties = []
        for _ in range(_MAX_COMPARISONS):
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
        distance = np.clip(values, self.low, self.high)
        distance -= self.low
        for _ in range(self.roots):
            np.sqrt(distance, out=distance)
        distance *= self.scale
        return distance.astype(np.int32)


def _make_grid(thresholds: NDArray[Any], count: int, roots: int) -> _Grid:
    limits = np.finfo(thresholds.dtype)
    # A few outliers above share the last cell; values below all thresholds share the first.
    ends = thresholds[[0, int(0.999 * (len(thresholds) - 1))]]
    low, high = np.clip(ends, limits.min / 8, limits.max / 8)
    low -= (high - low) / count
    span = float(high - low) ** 0.5**roots
    scale = min((count - 1) / max(span, float(limits.tiny)), float(limits.max))
    return _Grid(low, high, roots, thresholds.dtype.type(scale))
