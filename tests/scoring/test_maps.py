"""Anomaly maps against RD4AD's recipe, step by step in NumPy and SciPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from anomalib_rd.scoring import AnomalyScorer
from anomalib_rd.scoring.anomaly_map import gaussian_matrix


@pytest.mark.parametrize("shape", [(40, 56), (17, 23), (256, 256)])
def test_blur_is_scipys(shape):
    rng = np.random.default_rng(0)
    picture = rng.random(shape).astype(np.float32)
    blurred = (
        gaussian_matrix(shape[0], 4.0)
        @ torch.from_numpy(picture)
        @ gaussian_matrix(shape[1], 4.0).T
    )
    np.testing.assert_allclose(blurred, gaussian_filter(picture, sigma=4), atol=2e-6)


def recipe(features, restored, size):
    """RD4AD's cal_anomaly_map and gaussian_filter for one image, in words of its paper."""
    total = np.zeros(size)
    for f, r in zip(features, restored, strict=True):
        a, b = f.double().numpy(), r.double().numpy()
        cosine = (a * b).sum(0) / (np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0))
        distance = torch.from_numpy(1 - cosine)[None, None]
        total += F.interpolate(distance, size, mode="bilinear", align_corners=True)[0, 0].numpy()
    return gaussian_filter(total, sigma=4)


def test_map_and_score_are_rd4ads():
    torch.manual_seed(0)
    shapes = [(8, 16, 24), (16, 8, 12), (32, 4, 6)]
    features = [torch.randn(3, *s) for s in shapes]
    restored = [f + 0.5 * torch.randn_like(f) for f in features]
    maps, scores = AnomalyScorer(sigma=4)(features, restored, (64, 96))
    assert maps.shape == (3, 64, 96) and scores.shape == (3,)
    for i in range(3):
        expected = recipe([f[i] for f in features], [r[i] for r in restored], (64, 96))
        np.testing.assert_allclose(maps[i], expected, atol=1e-5)
        assert scores[i].item() == pytest.approx(expected.max(), abs=1e-5)


def test_perfect_restoration_scores_zero_and_sigma_zero_keeps_the_map():
    features = [torch.randn(1, 8, 4, 4)]
    maps, scores = AnomalyScorer(sigma=0)(features, features, (4, 4))
    assert maps.abs().max() < 1e-5 and scores.item() < 1e-5
    restored = [-features[0]]
    maps, _ = AnomalyScorer(sigma=0)(features, restored, (4, 4))
    torch.testing.assert_close(maps, torch.full((1, 4, 4), 2.0))


def test_negative_sigma_is_refused():
    with pytest.raises(ValueError, match=r"^sigma=-1: "):
        AnomalyScorer(sigma=-1)


def test_autocast_does_not_round_the_maps():
    torch.manual_seed(0)
    features = [torch.randn(2, 8, 16, 16)]
    restored = [features[0] + torch.randn(2, 8, 16, 16)]
    exact = AnomalyScorer()(features, restored, (64, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = AnomalyScorer()(features, restored, (64, 64))
    assert mixed.maps.dtype == torch.float32 and torch.equal(mixed.maps, exact.maps)
