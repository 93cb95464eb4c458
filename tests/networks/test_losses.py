"""Losses against values worked out by hand."""

import math

import pytest
import torch

from anomalib_rd.networks import FlattenedCosine, HardCosine, PixelCosine

# One image, two channels, one row of two positions: at the first the vectors agree, at the
# second they are orthogonal.
FEATURE = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])
RESTORED = torch.tensor([[[[3.0, 5.0]], [[4.0, 0.0]]]])


def test_pixel_cosine_by_hand():
    assert PixelCosine()([FEATURE], [RESTORED]).item() == pytest.approx((0 + 1) / 2)


def test_flattened_cosine_by_hand():
    cosine = 25 / (math.sqrt(9 + 16 + 4) * math.sqrt(9 + 16 + 25))
    assert FlattenedCosine()([FEATURE], [RESTORED]).item() == pytest.approx(1 - cosine)


@pytest.mark.parametrize("loss", [FlattenedCosine(), HardCosine(), PixelCosine()])
def test_sum_over_scales_mean_over_the_batch(loss):
    same, other = loss([FEATURE], [FEATURE]), loss([FEATURE], [RESTORED])
    assert same.item() == pytest.approx(0, abs=1e-6)
    batch = torch.cat([FEATURE, FEATURE]), torch.cat([RESTORED, FEATURE])
    assert loss([batch[0]], [batch[1]]).item() == pytest.approx(other.item() / 2)
    assert loss([FEATURE] * 3, [RESTORED] * 3).item() == pytest.approx(3 * other.item())


def gradient(loss, feature, restored):
    restored = restored.clone().requires_grad_()
    loss([feature], [restored]).backward()
    return restored.grad


def test_hard_cosine_is_the_flattened_cosine_with_another_gradient():
    draw = torch.Generator().manual_seed(0)
    feature, restored = (torch.rand(2, 3, 4, 5, generator=draw) for _ in range(2))
    value = HardCosine()([feature], [restored])
    assert value.item() == pytest.approx(FlattenedCosine()([feature], [restored]).item())
    distance = 1 - torch.cosine_similarity(feature, restored, dim=1)
    for image in range(2):
        weights = (distance[image] / distance[image].mean()).clamp(max=1.5)
        flat = gradient(FlattenedCosine(), feature, restored)[image]
        hard = gradient(HardCosine(limit=1.5), feature, restored)[image]
        assert torch.allclose(hard, flat * weights, atol=1e-7)
        assert weights.max() == 1.5  # the limit was met


def test_hard_cosine_of_a_perfect_student_is_finite():
    assert torch.isfinite(gradient(HardCosine(), FEATURE, FEATURE)).all()


def test_hard_cosine_needs_a_limit_above_the_mean():
    with pytest.raises(ValueError, match=r"^limit=1: "):
        HardCosine(limit=1)
