import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from anomalib_rd.metrics.functional import (
    image_metrics,
    pixel_metrics,
    rank_images,
    rank_pixels,
)


def pixel_curves(maps, masks, max_points=1000):
    return rank_pixels(maps, masks).curves(max_points)


@pytest.fixture
def case(rng):
    masks = np.zeros((6, 40, 40), dtype=bool)
    masks[0, 5:15, 5:15] = masks[1, 30:, 30:] = masks[2, 3, 3] = True
    maps = np.round(rng.random(masks.shape) + 0.4 * masks, 3)
    return torch.from_numpy(maps), torch.from_numpy(masks)


def test_areas_under_all_vertices_are_the_metrics(case):
    curves = pixel_curves(*case, max_points=10**9)
    metrics = pixel_metrics(*case)
    area = np.trapezoid(curves["pixel_roc_tpr"], curves["pixel_roc_fpr"])
    assert area == pytest.approx(metrics["pixel_auroc"], abs=1e-12)
    steps = np.diff(curves["pixel_pr_recall"], prepend=0)
    assert steps @ curves["pixel_pr_precision"] == pytest.approx(metrics["pixel_ap"], abs=1e-12)


def test_pr_points_are_scikit_learns(case):
    maps, masks = (tensor.ravel().numpy() for tensor in case)
    curves = rank_images(*map(torch.from_numpy, (maps, masks))).curves(max_points=10**9)
    precision, recall, thresholds = sk.precision_recall_curve(masks, maps)
    at = np.searchsorted(thresholds, curves["image_pr_threshold"])
    np.testing.assert_array_equal(thresholds[at], curves["image_pr_threshold"])
    np.testing.assert_allclose(curves["image_pr_precision"], precision[at])
    np.testing.assert_allclose(curves["image_pr_recall"], recall[at])


def test_thinned_curves_keep_their_ends_order_and_area(case):
    curves = pixel_curves(*case, max_points=100)
    assert all(10 < len(values) <= 100 for values in curves.values())
    full = pixel_curves(*case, max_points=10**9)
    for x, y in [("pixel_roc_fpr", "pixel_roc_tpr"), ("pro_fpr", "pro")]:
        assert (curves[x][0], curves[y][0], curves[x][-1], curves[y][-1]) == (0, 0, 1, 1)
        assert (np.diff(curves[x]) >= 0).all()
        assert (np.diff(curves[y]) >= 0).all()
        assert set(zip(curves[x], curves[y], strict=True)) <= set(
            zip(full[x], full[y], strict=True)
        )
        area = np.trapezoid(full[y], full[x])
        assert np.trapezoid(curves[y], curves[x]) == pytest.approx(area, abs=0.01)
    assert (np.diff(curves["pixel_pr_threshold"]) < 0).all()
    assert curves["pixel_pr_recall"][-1] == 1


def test_one_ranking_gives_metrics_and_curves(case):
    ranking = rank_pixels(*case)
    assert ranking.metrics() == pixel_metrics(*case)
    for key, values in pixel_curves(*case).items():
        np.testing.assert_array_equal(ranking.curves()[key], values)


@pytest.mark.parametrize("truth", [0, 1])
def test_undefined_curves_are_empty(truth):
    images = rank_images(torch.rand(4), torch.full((4,), truth)).curves()
    pixels = pixel_curves(torch.rand(2, 3, 3), torch.full((2, 3, 3), truth))
    assert {"image_roc_fpr", "image_pr_threshold"} < set(images)
    assert {"pro", "pro_fpr", "pixel_pr_recall"} < set(pixels)
    assert all(len(values) == 0 for values in [*images.values(), *pixels.values()])


def test_small_image_curve():
    scores, labels = torch.tensor([0.1, 0.9, 0.5, 0.5]), torch.tensor([0, 1, 1, 0])
    curves = rank_images(scores, labels).curves()
    assert curves["image_pr_threshold"].tolist() == pytest.approx([0.9, 0.5])
    assert curves["image_pr_recall"].tolist() == [0.5, 1.0]
    assert curves["image_pr_precision"].tolist() == pytest.approx([1.0, 2 / 3])
    assert curves["image_roc_fpr"].tolist() == [0, 0, 0, 0, 0.5, 1]
    assert curves["image_roc_tpr"].tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert image_metrics(scores, labels)["image_auroc"] == 0.875
