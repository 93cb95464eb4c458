"""Exact counting of values below thresholds: the one costly step of all ranking metrics."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalib_rd.metrics.rank_table import RankTable

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
