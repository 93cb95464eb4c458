"""Exact counting of values below thresholds: the one costly step of all ranking metrics."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LEAST_PER_PIECE = 1 << 20
_MOST_PER_CUDA_SORT = 1 << 24  # torch.sort also makes int64 indices: bound their memory


def rankable(values: Tensor) -> Tensor:
    """Return values in a type that NumPy sorts fast and that holds them exactly."""
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.float() if values.is_floating_point() else values.double()


def count_below(values: Tensor, thresholds: NDArray[Any]) -> NDArray[np.int64]:
    """Count the values below, and the values not above, each threshold.

    Counts add up over pieces of the values, so each piece is sorted by itself: on the CPU in
    threads (NumPy's vectorised sort releases the GIL), on CUDA one after the other.

    Args:
        values: any shape, any device, without NaN.
        thresholds: (K,) of the type of `rankable(values)`, ascending.

    Returns:
        (2, K): the number of values < threshold and of values <= threshold.
    """
    values = values.reshape(-1)
    total = np.zeros((2, len(thresholds)), dtype=np.int64)
    if len(values) == 0 or len(thresholds) == 0:
        return total
    if values.is_cuda:
        on_device = torch.from_numpy(thresholds).to(values.device)
        for piece in values.split(_MOST_PER_CUDA_SORT):
            total += _count_cuda(piece, on_device)
        return total
    threads = torch.get_num_threads()
    # Two pieces per thread: half of the values at most lie sorted beside the originals.
    pieces = values.chunk(max(1, min(2 * threads, len(values) // _LEAST_PER_PIECE)))
    with ThreadPoolExecutor(threads) as pool:
        for counts in pool.map(lambda piece: _count_cpu(piece, thresholds), pieces):
            total += counts
    return total


def _count_cpu(values: Tensor, thresholds: NDArray[Any]) -> NDArray[np.int64]:
    ordered = np.sort(rankable(values.cpu()).numpy())
    return np.stack(
        (ordered.searchsorted(thresholds, "left"), ordered.searchsorted(thresholds, "right"))
    )


def _count_cuda(values: Tensor, thresholds: Tensor) -> NDArray[np.int64]:
    ordered = rankable(values).sort().values
    below = torch.searchsorted(ordered, thresholds)
    not_above = torch.searchsorted(ordered, thresholds, right=True)
    return torch.stack((below, not_above)).cpu().numpy()
