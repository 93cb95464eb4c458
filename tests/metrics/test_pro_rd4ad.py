import math

import hypothesis.strategies as st
import numpy as np
import pytest
import slow_references as slow
import torch
from hypothesis import assume, given, settings
from hypothesis.extra import numpy as hnp

from anomalib_rd.metrics.pro_rd4ad import pro_rd4ad


def found(maps, masks):
    return pro_rd4ad(torch.from_numpy(maps), torch.from_numpy(masks))


@st.composite
def cases(draw):
    shape = draw(st.tuples(st.integers(1, 2), st.integers(2, 6), st.integers(2, 6)))
    seed = draw(st.integers(0, 2**32 - 1))
    levels = draw(st.sampled_from([5, 20, 10**6]))
    maps = np.random.default_rng(seed).integers(0, levels, shape).astype(np.float32) / levels
    return maps, draw(hnp.arrays(np.bool_, shape))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_equals_the_loop_over_200_thresholds(case):
    maps, masks = case
    assume(masks.any() and not masks.all(axis=(1, 2)).any())
    assume((maps.max(axis=(1, 2)) > maps.min(axis=(1, 2))).all())
    expected = slow.pro_rd4ad(maps, masks)
    assume(expected is not None)
    assert found(maps, masks) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_loop_on_larger_maps(rng, dtype):
    masks = np.zeros((4, 40, 40), dtype=bool)
    masks[0, 5:12, 5:9] = masks[0, 12, 9] = masks[1, 30:, 30:] = masks[2, 3, 3] = True
    maps = (rng.random(masks.shape) + 0.4 * masks).astype(dtype)
    assert found(maps, masks) == pytest.approx(slow.pro_rd4ad(maps, masks), abs=1e-12)


def test_a_score_equal_to_a_threshold_is_not_above_it(rng):
    masks = np.zeros((1, 30, 30), dtype=bool)
    masks[0, 5:12, 5:9] = masks[0, 20, 20] = True
    maps = rng.integers(0, 201, masks.shape).astype(np.float32)
    maps[0, 0, :2] = 0, 200  # so the thresholds are exactly 0, 1, ..., 199
    assert found(maps, masks) == pytest.approx(slow.pro_rd4ad(maps, masks), abs=1e-12)


def test_normal_images_do_not_count(rng):
    masks = np.zeros((3, 20, 20), dtype=bool)
    masks[1, 5:9, 5:9] = True
    maps = rng.random(masks.shape)
    assert found(maps, masks) == found(maps[1:2], masks[1:2])


def test_undefined_images_are_left_out_with_a_warning(rng):
    masks = np.zeros((3, 20, 20), dtype=bool)
    masks[:, 5:9, 5:9] = True
    maps = rng.random(masks.shape)
    maps[1] = 0.7  # constant
    maps[2] = masks[2]  # every kept false positive rate is 0
    with pytest.warns(UserWarning, match="2 of 3"):
        assert found(maps, masks) == found(maps[:1], masks[:1])
    with pytest.warns(UserWarning, match="1 of 1"):
        assert math.isnan(found(maps[1:2], masks[1:2]))
    with pytest.warns(UserWarning, match="1 of 1"):
        assert math.isnan(found(maps[:1], np.ones((1, 20, 20), dtype=bool)))


def test_nothing_to_measure_is_nan():
    assert math.isnan(pro_rd4ad(torch.rand(2, 5, 5), torch.zeros(2, 5, 5)))
    assert math.isnan(pro_rd4ad(torch.zeros(0, 5, 5), torch.zeros(0, 5, 5)))


@pytest.mark.parametrize("bad, message", [("inf", "1 of 16 .*infinite"), ("nan", "1 of 16 .*NaN")])
def test_scores_must_be_finite(bad, message):
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 0] = float(bad)
    with pytest.raises(ValueError, match=message):
        pro_rd4ad(maps, torch.eye(4)[None])


def test_half_precision(rng):
    masks = torch.zeros(1, 20, 20, dtype=torch.bool)
    masks[0, 5:9, 5:9] = True
    maps = torch.from_numpy(rng.random((1, 20, 20))).bfloat16()
    assert pro_rd4ad(maps, masks) == pro_rd4ad(maps.double(), masks)
