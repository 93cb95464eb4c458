import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from anomalib_rd.metrics import counting
from anomalib_rd.metrics.counting import (
    RankTable,
    count_below,
    count_by_bucketize,
    distinct,
    distinct_by_torch,
)
from anomalib_rd.metrics.functional import pixel_metrics, rank_pixels


@st.composite
def values_and_thresholds(draw):
    """Any floats but NaN, infinite, tiny and huge ones too, and thresholds among them."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    width = 8 * np.dtype(dtype).itemsize
    anything = st.floats(allow_nan=False, width=width)
    few = st.integers(-3, 3).map(float)
    values = draw(
        hnp.arrays(dtype, st.integers(1, 60), elements=draw(st.sampled_from([anything, few])))
    )
    chosen = draw(hnp.arrays(np.bool_, len(values)))
    more = draw(hnp.arrays(dtype, st.integers(1, 5), elements=anything))
    return values, np.unique(np.concatenate((values[chosen], more)))


@settings(max_examples=300)
@given(values_and_thresholds(), st.integers(1, 100))
def test_ranks_are_those_of_a_binary_search(case, max_cells):
    values, thresholds = case
    ranks, ties = RankTable(thresholds, max_cells).rank(values)
    below = thresholds.searchsorted(values)
    np.testing.assert_array_equal(ranks, below)
    tied = below[thresholds.searchsorted(values, "right") > below]
    np.testing.assert_array_equal(np.sort(ties), np.sort(tied))


SHAPES = {
    "gaussian": lambda x: x,
    "long tail": lambda x: np.exp(2 * x),
    "far from zero": lambda x: x + 1000,
    "many scales": lambda x: np.sign(x) * np.exp(15 * np.abs(x)),
    "one outlier": lambda x: np.append(x, 1e30),
    "infinite ends": lambda x: np.append(x, [-np.inf, np.inf]),
    "coarse": lambda x: np.round(x, 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_of_many_values(rng, shape, dtype):
    values = SHAPES[shape](rng.normal(size=200_000)).astype(dtype)
    thresholds = np.unique(values[::-30])
    ordered = np.sort(values)
    for count in (count_below, lambda v, t: count_by_bucketize(v, torch.from_numpy(t))):
        below, not_above = count(torch.from_numpy(values), thresholds)
        np.testing.assert_array_equal(below, ordered.searchsorted(thresholds, "left"))
        np.testing.assert_array_equal(not_above, ordered.searchsorted(thresholds, "right"))


@pytest.mark.parametrize("shape", ["gaussian", "long tail", "far from zero", "one outlier"])
def test_few_values_need_a_binary_search(rng, shape):
    values = SHAPES[shape](rng.normal(size=200_000)).astype(np.float32)
    thresholds = np.unique(values[::-30])
    cells = RankTable(thresholds, len(values) // 4)._grid.cells
    crowded = np.bincount(cells(thresholds)) > counting._MAX_COMPARISONS
    assert crowded[cells(values)].mean() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distinct_values_on_a_device_are_those_of_numpy(rng, dtype):
    values = torch.from_numpy(rng.integers(-50, 50, 1000) / 8).to(dtype)
    for found, expected in zip(distinct_by_torch(values), distinct(values), strict=True):
        np.testing.assert_array_equal(found, expected)


def large_case(rng, defect_share):
    maps = rng.random((60, 256, 256), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    side = round(256 * (defect_share / 0.8) ** 0.5)
    masks[:48, 20 : 20 + side, 30 : 30 + side] = True
    return torch.from_numpy(maps + 0.2 * masks), torch.from_numpy(masks)


@pytest.mark.parametrize("defect_share", [0.01, 0.04])
def test_memory_beside_the_maps_is_less_than_theirs(rng, monkeypatch, defect_share):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    maps, masks = large_case(rng, defect_share)
    assert masks.float().mean() == pytest.approx(defect_share, rel=0.05)
    for work in (pixel_metrics, lambda *case: rank_pixels(*case).curves()):
        tracemalloc.start()  # sees NumPy's memory; torch makes none of the maps' size here
        work(maps, masks)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < maps.nbytes


@pytest.mark.gpu
def test_cuda_memory_beside_the_maps_is_less_than_theirs(rng):
    maps, masks = (tensor.cuda() for tensor in large_case(rng, 0.04))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pixel_metrics(maps, masks)
    assert torch.cuda.max_memory_allocated() - before < maps.nbytes
