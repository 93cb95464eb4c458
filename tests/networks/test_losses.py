"""Losses against values worked out by hand."""

import math

import pytest
import torch

from anomalib_rd.networks import FlattenedCosine, PixelCosine

# One image, two channels, one row of two positions: at the first the vectors agree, at the
# second they are orthogonal.
FEATURE = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])
RESTORED = torch.tensor([[[[3.0, 5.0]], [[4.0, 0.0]]]])


def test_pixel_cosine_by_hand():
    assert PixelCosine()([FEATURE], [RESTORED], []).item() == pytest.approx((0 + 1) / 2)


def test_flattened_cosine_by_hand():
    cosine = 25 / (math.sqrt(9 + 16 + 4) * math.sqrt(9 + 16 + 25))
    assert FlattenedCosine()([FEATURE], [RESTORED], []).item() == pytest.approx(1 - cosine)


@pytest.mark.parametrize("loss", [FlattenedCosine(), PixelCosine()])
def test_sum_over_scales_mean_over_the_batch(loss):
    same, other = loss([FEATURE], [FEATURE], []), loss([FEATURE], [RESTORED], [])
    assert same.item() == pytest.approx(0, abs=1e-6)
    batch = torch.cat([FEATURE, FEATURE]), torch.cat([RESTORED, FEATURE])
    assert loss([batch[0]], [batch[1]], []).item() == pytest.approx(other.item() / 2)
    assert loss([FEATURE] * 3, [RESTORED] * 3, []).item() == pytest.approx(3 * other.item())
