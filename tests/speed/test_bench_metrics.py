import numpy as np
import pytest

from experiments.speed.bench import metrics
from experiments.speed.bench.measuring import reset_peak_rss


@pytest.fixture
def few_contestants(monkeypatch):
    names = [metrics.OURS, "anomalib-rd, streamed", metrics.ARGSORT, "scikit-learn, AUROC alone"]
    monkeypatch.setattr(metrics, "CONTESTANTS", {n: metrics.CONTESTANTS[n] for n in names})
    return names


def test_contestants_are_timed_and_agree(few_contestants, monkeypatch):
    monkeypatch.setattr(metrics, "peak_in_own_process", lambda *_: 7)
    result = metrics.measure(6, 48, 2)
    assert (result["maps"], result["size"]) == (6, 48)
    assert list(result["contestants"]) == few_contestants
    ours = result["contestants"][metrics.OURS]
    assert ours["ratio"] == 1
    assert set(ours["values"]) >= {"pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_5"}
    for figures in result["contestants"].values():
        assert 0 < figures["min_s"] <= figures["median_s"] <= figures["max_s"]
        assert figures["ratio"] == figures["median_s"] / ours["median_s"]
        assert figures["peak_bytes"] == 7
        assert figures["values"]
        for name, value in figures["values"].items():
            assert value == pytest.approx(ours["values"][name], abs=1e-9)


def test_missing_packages_are_skipped(few_contestants, monkeypatch):
    missing = metrics.CONTESTANTS[metrics.ARGSORT]._replace(package="no_such_package")
    monkeypatch.setitem(metrics.CONTESTANTS, metrics.ARGSORT, missing)
    assert metrics.ARGSORT not in metrics.growth([2, 3], [32, 48], 1)["by_count"][0]["contestants"]


def test_growth_skips_large_cases_of_the_slow_argsort(few_contestants, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_SORTED", 4 * 48 * 48)
    result = metrics.growth([2, 4, 5], [32, 48, 64], 1)
    assert [(row["maps"], row["size"]) for row in result["by_count"]] == [(2, 48), (4, 48), (5, 48)]
    assert [(row["maps"], row["size"]) for row in result["by_size"]] == [(4, 32), (4, 48), (4, 64)]
    for row in result["by_count"] + result["by_size"]:
        small = row["maps"] * row["size"] ** 2 <= 4 * 48 * 48
        assert (metrics.ARGSORT in row["contestants"]) == small
        assert row["contestants"][metrics.OURS] > 0


def test_examples_are_reproducible_and_have_both_classes():
    maps, masks = metrics.example(4, 48)
    again, _ = metrics.example(4, 48)
    np.testing.assert_array_equal(maps, again)
    assert maps.dtype == np.float32
    assert masks.any(axis=(1, 2)).tolist() == [True, True, False, False]


@pytest.mark.slow  # a process that imports torch
def test_memory_is_measured_in_its_own_process():
    peak = metrics.peak_in_own_process(metrics.ARGSORT, 20, 128)
    if not reset_peak_rss():
        assert peak is None
    else:  # three arrays of 8 bytes a pixel, and more
        assert 3 * 8 < peak / (20 * 128**2) < 100
