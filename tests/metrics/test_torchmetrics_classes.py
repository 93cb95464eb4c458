import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_rd.metrics import ImageMetrics, PixelMetrics, ProRD4AD, StreamedPixelMetrics
from anomalib_rd.metrics.functional import image_metrics, pixel_curves, pixel_metrics, pro_rd4ad


def make_case():
    rng = np.random.default_rng(3)
    masks = np.zeros((7, 16, 16), dtype=bool)
    masks[:5, 2:6, 2:7] = masks[1, 10:12, 10:] = True
    maps = np.round(rng.random(masks.shape) + 0.4 * masks, 2)
    return torch.from_numpy(maps), torch.from_numpy(masks)


MAPS, MASKS = make_case()
SCORES, LABELS = MAPS.amax((1, 2)), MASKS.any(2).any(1).long()
CASES = [
    (ImageMetrics, image_metrics, SCORES, LABELS),
    (PixelMetrics, pixel_metrics, MAPS, MASKS),
    (ProRD4AD, pro_rd4ad, MAPS, MASKS),
]


@pytest.mark.parametrize("metric_class, function, values, truths", CASES)
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 6), unique=True).map(sorted))
def test_any_split_into_batches_equals_the_function(metric_class, function, values, truths, cuts):
    metric = metric_class()
    batches = zip(values.tensor_split(cuts), truths.tensor_split(cuts), strict=True)
    for batch in batches:
        metric.update(*batch)
    assert metric.compute() == function(values, truths)


@pytest.mark.parametrize("metric_class, function, values, truths", CASES)
def test_updates_after_compute_and_reset(metric_class, function, values, truths):
    metric = metric_class()
    metric.update(values[:5], truths[:5])
    metric.compute()
    metric.update(values[5:], truths[5:])
    assert metric.compute() == function(values, truths)
    metric.reset()
    metric.update(values[4:], truths[4:])
    assert metric.compute() == function(values[4:], truths[4:])
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def test_curves_come_from_the_ranking_of_everything_seen(monkeypatch):
    metric = PixelMetrics()
    metric(MAPS[:3], MASKS[:3])  # forward also ranks this batch by itself
    metric.update(MAPS[3:], MASKS[3:])
    metric.compute()
    monkeypatch.setattr(PixelMetrics, "rank", None)  # nothing is ranked again
    for key, values in pixel_curves(MAPS, MASKS).items():
        np.testing.assert_array_equal(metric.curves()[key], values)


def test_a_bad_batch_fails_at_once():
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        PixelMetrics().update(MAPS[:, None], MASKS[:, None])
    with pytest.raises(ValueError, match="NaN"):
        ImageMetrics().update(torch.tensor([float("nan")]), torch.tensor([1]))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen_is_nan():
    for metric in (ImageMetrics(), PixelMetrics()):
        assert all(math.isnan(value) for value in metric.compute().values())
    assert math.isnan(ProRD4AD().compute())


def _one_process(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    mine = slice(0, 5) if rank == 0 else slice(5, 7)  # uneven shares
    results = {}
    for metric_class, _, values, truths in CASES:
        metric = metric_class()
        metric.update(values[mine], truths[mine])
        results[metric_class.__name__] = metric.compute()
        if metric_class is PixelMetrics:
            results["curves"] = metric.curves()
    metric = StreamedPixelMetrics(64)
    metric.update(MAPS[mine].float(), MASKS[mine])
    results["bounds"] = metric.bounds()
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow  # two processes that import torch
def test_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(_one_process, (str(tmp_path),), nprocs=2)
    streamed = StreamedPixelMetrics(64)
    streamed.update(MAPS.float(), MASKS)
    assert int(streamed.shift) > 0
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for metric_class, function, values, truths in CASES:
            assert results[metric_class.__name__] == function(values, truths)
        for key, values in pixel_curves(MAPS, MASKS).items():
            np.testing.assert_array_equal(results["curves"][key], values)
        for name, pair in streamed.bounds().items():
            assert results["bounds"][name] == pytest.approx(pair, abs=1e-12)
