import math
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from anomalib_rd.metrics import streaming
from anomalib_rd.metrics.functional import pixel_metrics, rank_pixels
from anomalib_rd.metrics.streaming import ScoreBins, StreamedPixelMetrics, pixel_bounds

ROUNDING = 1e-12


def streamed(maps, masks, max_bins, cuts=()):
    metric = StreamedPixelMetrics(max_bins)
    batches = zip(maps.tensor_split(cuts), masks.tensor_split(cuts), strict=True)
    for batch in batches:
        metric.update(*batch)
        assert sum(map(len, metric.keys)) <= max_bins
    return metric


@st.composite
def cases(draw):
    """Maps (5, H, W) of many or few scores, of one or many scales, and masks of both classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    maps = rng.normal(size=(5, draw(st.integers(1, 12)), draw(st.integers(1, 12))))
    shape = draw(
        st.sampled_from(
            [
                lambda x: x,
                np.exp,
                lambda x: np.round(x, 1),
                lambda x: np.sinh(10 * x),
                lambda x: 0 * x,
            ]
        )
    )
    masks = rng.random(maps.shape) < draw(st.sampled_from([0.02, 0.2, 0.9]))
    masks.flat[0], masks.flat[1] = True, False
    maps = shape(maps + draw(st.sampled_from([0.0, 1.0, -1.0])) * masks).astype(np.float32)
    return torch.from_numpy(maps), torch.from_numpy(masks)


CUTS = st.lists(st.integers(1, 4), unique=True).map(sorted)


@settings(max_examples=200)
@given(cases(), CUTS, st.sampled_from([64, 100, 300]))
def test_exact_values_lie_within_the_bounds(case, cuts, max_bins):
    exact = pixel_metrics(*case)
    metric = streamed(*case, max_bins, cuts)
    for name, (least, most) in metric.bounds().items():
        assert 0 <= least <= most <= 1
        assert least - ROUNDING <= exact[name] <= most + ROUNDING
        assert metric.compute()[name] == pytest.approx((least + most) / 2)


@settings(max_examples=100)
@given(cases(), CUTS)
def test_enough_bins_make_it_exact(case, cuts):
    exact = pixel_metrics(*case)
    metric = streamed(*case, len(case[0].unique()) + 64, cuts)
    assert metric.compute() == pytest.approx(exact, abs=ROUNDING)
    assert all(least == most for least, most in metric.bounds().values())
    for key, values in rank_pixels(*case).curves().items():
        np.testing.assert_allclose(metric.curves()[key], values, atol=ROUNDING)


@settings(max_examples=50)
@given(cases(), CUTS, st.permutations(range(5)))
def test_batches_and_their_order_do_not_matter(case, cuts, order):
    maps, masks = case
    whole = streamed(maps, masks, 64).bounds()
    parts = streamed(maps[list(order)], masks[list(order)], 64, cuts).bounds()
    for name, pair in whole.items():
        assert parts[name] == pytest.approx(pair, abs=ROUNDING)


@settings(max_examples=50)
@given(cases())
def test_more_bins_never_widen_the_bounds(case):
    few, many = streamed(*case, 64).bounds(), streamed(*case, 200).bounds()
    for name, (least, most) in few.items():
        assert least - ROUNDING <= many[name][0] <= many[name][1] <= most + ROUNDING


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_the_bounds_are_reached_by_some_order_within_the_bins(seed):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 6, (3, 8, 8)).astype(np.float32)
    masks = rng.random(maps.shape) < 0.3
    masks.flat[0], masks.flat[1] = True, False
    bounds = pixel_bounds(ScoreBins.from_maps(maps, masks, 0))

    def exact(scores):
        return pixel_metrics(torch.from_numpy(scores), torch.from_numpy(masks))

    for name, value in exact(maps + 0.5 * masks).items():  # defects first
        assert value == pytest.approx(bounds[name][1], abs=ROUNDING)
    last = exact(maps + 0.5 * ~masks)
    one_by_one = exact((maps + 0.5 * ~masks).astype(np.float64) + 1e-3 * rng.random(maps.shape))
    # The sum of 1 / (x + j) is bounded, not computed.
    assert bounds["pixel_ap"][0] == pytest.approx(one_by_one.pop("pixel_ap"), abs=1e-3)
    for name in one_by_one:
        assert last[name] == pytest.approx(bounds[name][0], abs=ROUNDING)


def smooth_case():
    rng = np.random.default_rng(5)
    masks = np.zeros((6, 64, 64), dtype=bool)
    masks[:4, 10:20, 10:25] = masks[1, 40:50, 40:] = True
    maps = rng.gamma(2, 0.05, masks.shape) + 0.2 * masks
    return torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(masks)


def test_bounds_of_many_scores_are_narrow():
    def width(max_bins):
        return max(
            most - least for least, most in streamed(*smooth_case(), max_bins).bounds().values()
        )

    assert width(1024) < 0.02
    assert width(8192) < 0.002


def test_rounding_takes_no_bound_out_of_0_to_1():
    assert streaming._clipped(-1e-16, 1 + 1e-15) == (0.0, 1.0)


def test_curves_of_merged_scores_are_counts_at_their_thresholds():
    maps, masks = smooth_case()
    curves = streamed(maps, masks, 200).curves()
    points = [curves[f"pixel_pr_{name}"] for name in ("threshold", "recall", "precision")]
    assert 20 < len(points[0]) <= 200
    for threshold, recall, precision in zip(*points, strict=True):
        found = maps >= threshold
        assert recall == pytest.approx(found[masks].double().mean().item())
        assert precision == pytest.approx(masks[found].double().mean().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_exact(dtype):
    maps, masks = smooth_case()
    typed = maps.to(dtype)
    found = streamed(typed, masks, 2**16).compute()
    assert found == pytest.approx(pixel_metrics(typed, masks), abs=ROUNDING)


def test_infinite_scores_and_signed_zeros_rank():
    inf = float("inf")
    maps = torch.tensor([-inf, -0.0, 0.0, inf, inf, -inf, 1.0]).reshape(1, 1, 7)
    masks = torch.tensor([0, 0, 1, 1, 0, 1, 1]).reshape(1, 1, 7)
    metric = streamed(maps, masks, 64)
    assert metric.compute() == pytest.approx(pixel_metrics(maps, masks), abs=ROUNDING)
    assert metric.curves()["pixel_pr_threshold"].tolist() == [inf, 1, 0, -inf]
    many = torch.cat((maps.flatten(), torch.linspace(-9, 9, 200))).reshape(1, 1, -1)
    truth = torch.cat((masks.flatten(), torch.arange(200) % 2)).reshape(1, 1, -1)
    merged = streamed(many, truth, 64)
    assert merged.curves()["pixel_pr_threshold"][[0, -1]].tolist() == [inf, -inf]
    for name, value in pixel_metrics(many, truth).items():
        least, most = merged.bounds()[name]
        assert least <= value <= most


def test_what_would_break_the_bounds_is_refused():
    masks = torch.zeros(1, 2, 2)
    for dtype in (torch.float64, torch.int64):
        with pytest.raises(ValueError, match=str(dtype)):
            StreamedPixelMetrics().update(torch.zeros(1, 2, 2, dtype=dtype), masks)
    with pytest.raises(ValueError, match="4 of 4"):
        StreamedPixelMetrics().update(torch.full((1, 2, 2), torch.nan), masks)
    with pytest.raises(ValueError, match="63"):
        StreamedPixelMetrics(63)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("shape", [None, (0, 3, 3), (2, 3, 3), (2, 0, 3)])
@pytest.mark.parametrize("truth", [0, 1])
def test_undefined_is_nan_with_the_reason(shape, truth):
    metric = StreamedPixelMetrics()
    masks = torch.full(shape or (0, 0, 0), truth)
    if shape is not None:
        metric.update(torch.rand(shape), masks)
    assert all(math.isnan(value) for value in metric.compute().values())
    assert all(math.isnan(end) for pair in metric.bounds().values() for end in pair)
    assert list(metric.bounds()) == list(pixel_metrics(torch.rand(1, 3, 3), torch.eye(3)[None]))
    assert all(len(values) == 0 for values in metric.curves().values())
    assert metric.why_undefined() == rank_pixels(masks, masks).why_undefined()


def test_undefined_after_merging_is_nan():
    maps, _ = smooth_case()
    metric = streamed(maps, torch.zeros_like(maps), 64)
    assert all(math.isnan(value) for value in metric.compute().values())
    assert metric.why_undefined() == rank_pixels(maps, torch.zeros_like(maps)).why_undefined()


def test_updates_after_compute_reset_and_pickle():
    maps, masks = smooth_case()
    metric = streamed(maps[:3], masks[:3], 64)
    metric.compute()
    metric.update(maps[3:], masks[3:])
    assert metric.bounds() == streamed(maps, masks, 64, [3]).bounds()
    assert metric.why_undefined() is None
    metric.reset()
    metric.update(maps[2:], masks[2:])
    assert metric.compute() == streamed(maps[2:], masks[2:], 64).compute()
    assert pickle.loads(pickle.dumps(metric)).bounds() == metric.bounds()


def test_forward_gives_the_batch_and_keeps_all():
    maps, masks = smooth_case()
    metric = StreamedPixelMetrics(64)
    for image in range(4):
        batch = maps[image : image + 1], masks[image : image + 1]
        assert metric(*batch) == streamed(*batch, 64).compute()
        assert sum(map(len, metric.keys)) <= 64
    assert metric.compute() == pytest.approx(streamed(maps[:4], masks[:4], 64).compute())


@pytest.mark.gpu
def test_cuda_equals_cpu():
    maps, masks = smooth_case()
    metric = StreamedPixelMetrics(256).to("cuda")
    metric.update(maps.cuda(), masks.cuda())
    assert metric.keys[0].is_cuda
    assert metric.bounds() == streamed(maps, masks, 256).bounds()


def run_process(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    share = slice(0, 4) if rank == 0 else slice(4, 6)  # uneven
    metric = StreamedPixelMetrics(64)
    metric.update(*(part[share] for part in smooth_case()))
    torch.save(metric.bounds(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow  # two processes that import torch
def test_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(run_process, (str(tmp_path),), nprocs=2)
    metric = streamed(*smooth_case(), 64)
    assert int(metric.shift) > 0
    for rank in (0, 1):
        bounds = torch.load(tmp_path / f"{rank}.pt")
        for name, pair in metric.bounds().items():
            assert bounds[name] == pytest.approx(pair, abs=ROUNDING)
