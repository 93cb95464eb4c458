import math

import hypothesis.strategies as st
import numpy as np
import pytest
import slow_references as slow
import torch
from hypothesis import assume, given, settings
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from anomalib_rd.metrics import counting
from anomalib_rd.metrics.functional import (
    image_metrics,
    pixel_metrics,
    rank_images,
    rank_pixels,
)
from anomalib_rd.metrics.ranking import best_f1_threshold, rank_scores

IMAGE_KEYS = ["image_auroc", "image_ap", "image_f1max"]
PIXEL_KEYS = ["pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_5"]


def expected_pixel(maps, masks):
    return {
        "pixel_auroc": sk.roc_auc_score(masks.ravel(), maps.ravel()),
        "pixel_ap": sk.average_precision_score(masks.ravel(), maps.ravel()),
        "pixel_f1max": slow.f1max(maps, masks),
        "aupro": slow.aupro_all_thresholds(maps, masks, 0.3),
        "aupro_5": slow.aupro_all_thresholds(maps, masks, 0.05),
    }


def of_pixels(maps, masks):
    return pixel_metrics(torch.from_numpy(maps), torch.from_numpy(masks))


@st.composite
def cases(draw):
    """Small maps with few distinct values, so that ties abound, and any masks of both classes."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    levels = draw(st.sampled_from([2, 4, 50]))
    maps = draw(hnp.arrays(np.float32, shape, elements=st.integers(0, levels).map(float)))
    masks = draw(hnp.arrays(np.bool_, shape))
    assume(masks.any() and not masks.all())
    return maps, masks


@settings(max_examples=200, deadline=None)
@given(cases())
def test_pixel_metrics_equal_the_definitions(case):
    maps, masks = case
    assert of_pixels(maps, masks) == pytest.approx(expected_pixel(maps, masks), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_image_metrics_equal_the_definitions(case):
    scores, labels = case[0].ravel(), case[1].ravel()
    found = image_metrics(torch.from_numpy(scores), torch.from_numpy(labels).long())
    assert found == pytest.approx(
        {
            "image_auroc": sk.roc_auc_score(labels, scores),
            "image_ap": sk.average_precision_score(labels, scores),
            "image_f1max": slow.f1max(scores, labels),
        },
        abs=1e-12,
    )


@settings(max_examples=50, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_images_and_monotone_transforms_do_not_matter(case, random):
    maps, masks = case
    order = random.sample(range(len(maps)), len(maps))
    transformed = np.exp(maps[order].astype(np.float64) / 10) - 3
    assert of_pixels(transformed, masks[order]) == pytest.approx(of_pixels(maps, masks), abs=1e-12)


def smooth_case(rng, images=12, size=48):
    maps = rng.random((images, size, size), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    for image in range(0, images, 2):
        for _ in range(rng.integers(1, 4)):
            row, column, height, width = rng.integers((0, 0, 2, 2), (40, 40, 12, 12))
            masks[image, row : row + height, column : column + width] = True
    return maps + 0.3 * masks, masks


@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_aupro_equals_mvtec_code(rng, decimals):
    maps, masks = smooth_case(rng)
    maps = np.round(maps, decimals)
    found = of_pixels(maps, masks)
    assert found["aupro"] == pytest.approx(slow.aupro_mvtec(maps, masks, 0.3), abs=1e-12)
    assert found["aupro_5"] == pytest.approx(slow.aupro_mvtec(maps, masks, 0.05), abs=1e-12)


def test_blocks_and_threads_do_not_matter(rng, monkeypatch):
    maps, masks = smooth_case(rng)
    whole = of_pixels(maps, masks)
    monkeypatch.setattr(counting, "_BLOCK", 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert of_pixels(maps, masks) == whole


def test_inference_mode_does_not_matter(rng):
    maps, masks = smooth_case(rng, 4, 24)
    with torch.inference_mode():
        tensors = torch.from_numpy(maps).bfloat16(), torch.from_numpy(masks)
        found = pixel_metrics(*tensors)
    assert found == pixel_metrics(*tensors)


def test_perfect_reversed_and_constant_maps():
    masks = torch.zeros(2, 10, 10, dtype=torch.bool)
    masks[0, 2:5, 2:5] = True
    masks[1, 7, 7] = True
    assert pixel_metrics(masks.float(), masks) == dict.fromkeys(PIXEL_KEYS, 1.0)
    reverse = pixel_metrics(-masks.float(), masks)
    assert (reverse["pixel_auroc"], reverse["aupro"]) == (0.0, 0.0)
    # One diagonal segment from (0, 0) to (1, 1).
    constant = pixel_metrics(torch.zeros(2, 10, 10), masks)
    assert constant["pixel_auroc"] == 0.5
    assert constant["aupro"] == pytest.approx(0.15)
    assert constant["aupro_5"] == pytest.approx(0.025)
    assert constant["pixel_ap"] == pytest.approx(10 / 200)


def test_pixels_that_touch_at_a_corner_are_one_region():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 1, 1] = masks[0, 2, 2] = masks[0, 3, 1] = True
    masks[0, 6, 6] = True
    maps = torch.zeros(1, 8, 8)
    maps[0, 6, 6] = 1.0
    maps[0, 0, 0] = 0.5
    # Two regions: one found at once, the other only with all normals: PRO 1/2 until FPR 1/60,
    # then one diagonal to (1, 1).
    at_limit = 0.5 + 0.5 * (0.3 - 1 / 60) / (1 - 1 / 60)
    expected = (0.5 / 60 + (0.3 - 1 / 60) * (0.5 + at_limit) / 2) / 0.3
    assert pixel_metrics(maps, masks)["aupro"] == pytest.approx(expected, abs=1e-12)


def test_regions_do_not_reach_into_the_next_image():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 3] = True  # 4 pixels: would join the pixel below it if images were stacked
    masks[1, 0, 0] = True
    maps = torch.zeros(2, 4, 4)
    maps[1, 0, 0] = 1.0
    assert rank_pixels(maps, masks).overlap.tolist() == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_other_types_rank_like_the_same_values_in_float32(rng, dtype):
    maps, masks = smooth_case(rng, 4, 24)
    typed = torch.from_numpy(maps * 100).to(dtype)
    found = pixel_metrics(typed, torch.from_numpy(masks))
    assert found == pytest.approx(of_pixels(typed.double().numpy(), masks), abs=0)
    assert found == pytest.approx(expected_pixel(typed.double().numpy(), masks), abs=1e-12)


def test_float64_is_not_rounded():
    scores = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert image_metrics(scores, torch.tensor([0, 1]))["image_auroc"] == 1.0
    assert image_metrics(scores.float(), torch.tensor([0, 1]))["image_auroc"] == 0.5


@pytest.mark.parametrize("truth", [0, 1])
def test_one_class_is_undefined_not_zero_or_one(truth):
    images = image_metrics(torch.rand(4), torch.full((4,), truth))
    pixels = pixel_metrics(torch.rand(2, 3, 3), torch.full((2, 3, 3), bool(truth)))
    assert list(images) == IMAGE_KEYS
    assert list(pixels) == PIXEL_KEYS
    assert all(math.isnan(value) for value in [*images.values(), *pixels.values()])


def test_no_images_is_undefined():
    images = image_metrics(torch.zeros(0), torch.zeros(0))
    pixels = pixel_metrics(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))
    assert all(math.isnan(value) for value in [*images.values(), *pixels.values()])


def test_why_undefined_tells_the_cases_apart():
    assert rank_images(torch.rand(2), torch.tensor([0, 1])).why_undefined() is None
    assert rank_pixels(torch.rand(1, 3, 3), torch.eye(3)[None]).why_undefined() is None
    images = [torch.zeros(0), torch.zeros(3), torch.ones(3)]
    pixels = [torch.zeros(0, 4, 4), torch.zeros(2, 3, 3), torch.ones(2, 3, 3)]
    reasons = [rank_images(labels, labels).why_undefined() for labels in images]
    reasons += [rank_pixels(masks, masks).why_undefined() for masks in pixels]
    assert len({reason for reason in reasons if reason}) == 6


def test_infinite_scores_rank():
    inf = float("inf")
    scores = torch.tensor([-inf, 0.0, inf, inf, -inf])
    labels = torch.tensor([0, 0, 1, 0, 1])
    finite = torch.tensor([-9.0, 0.0, 9.0, 9.0, -9.0])
    assert image_metrics(scores, labels) == image_metrics(finite, labels)
    stack = (scores.reshape(1, 1, 5), finite.reshape(1, 1, 5))
    masks = labels.reshape(1, 1, 5)
    assert pixel_metrics(stack[0], masks) == pixel_metrics(stack[1], masks)


def test_signed_zeros_tie():
    assert image_metrics(torch.tensor([0.0, -0.0]), torch.tensor([0, 1]))["image_auroc"] == 0.5


def test_nan_is_an_error_that_counts():
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, :3] = float("nan")
    with pytest.raises(ValueError, match="3 of 32"):
        pixel_metrics(maps, torch.eye(4).repeat(2, 1, 1))
    with pytest.raises(ValueError, match="1 of 2"):
        image_metrics(torch.tensor([float("nan"), 0]), torch.tensor([0, 1]))


def test_wrong_shapes_and_labels_are_errors():
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        image_metrics(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\)"):
        pixel_metrics(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="labels"):
        image_metrics(torch.zeros(2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="masks"):
        pixel_metrics(torch.zeros(2, 4, 4), torch.full((2, 4, 4), 255))


def test_gradients_and_strides_do_not_matter(rng):
    maps, masks = smooth_case(rng, 4, 24)
    tensor = torch.from_numpy(maps).requires_grad_()
    turned = (tensor.transpose(1, 2), torch.from_numpy(masks).transpose(1, 2))
    assert pixel_metrics(*turned) == pytest.approx(of_pixels(maps, masks), abs=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cuda_equals_cpu(rng, monkeypatch, dtype):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    maps, masks = smooth_case(rng)
    tensors = torch.from_numpy(maps).to(dtype), torch.from_numpy(masks)
    expected = pixel_metrics(*tensors)
    monkeypatch.setattr(counting, "_DEVICE_CHUNK", 5000)
    assert pixel_metrics(tensors[0].cuda(), tensors[1].cuda()) == expected
    assert pixel_metrics(tensors[0].cuda(), tensors[1]) == expected
    images = tensors[0].amax((1, 2)), tensors[1].any(2).any(1)
    assert image_metrics(images[0].cuda(), images[1].cuda()) == image_metrics(*images)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30).filter(
        lambda pairs: any(label for _, label in pairs)
    )
)
def test_best_f1_threshold_is_the_best_of_all(pairs):
    scores, labels = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    threshold = best_f1_threshold(rank_scores(scores, labels == 1))
    f1 = {t: sk.f1_score(labels, scores >= t, zero_division=0) for t in set(scores)}
    assert f1[threshold] == pytest.approx(max(f1.values()))
