"""Figures, tables and plots of the measurements."""

import pytest
import torch
from PIL import Image

from anomalib_rd.errors import UserError
from experiments.speed.bench import ceilings, display, measuring
from experiments.speed.bench.train import VARIANTS, check, select_variants, summarise

LIMITS = {
    "matmul_fp32": 100.0,
    "conv_fp32": 80.0,
    "matmul_bf16": 150.0,
    "conv_bf16": 200.0,
    "copy": 9.0,
}


def answer(*seconds, precision="32-true"):
    return {
        "epochs_s": list(seconds),
        "startup_s": 1.0,
        "step_flops": 8e9,
        "step_images": 4,
        "precision": precision,
        "metrics": {"image_auroc": 0.5, "pixel_auroc": float("nan"), "aupro": 0.25},
        "peak_rss": 2**30,
        "peak_cuda": None,
    }


@pytest.fixture
def trained():
    baseline = [12.0, 10.0, 8.0]
    answers = [answer(*baseline), answer(6.0, 2.0, 1.0, precision="bf16-mixed")]
    contestants = {
        variant.label: {"name": variant.name, **summarise(a, baseline, 20, LIMITS)}
        for variant, a in zip(VARIANTS[1:3], answers, strict=True)
    }
    return {
        "title": "rd4ad on bolts",
        "machine": "a machine",
        "images": 20,
        "batch_size": 4,
        "epochs": 3,
        "baseline": VARIANTS[1].label,
        "contestants": contestants,
        "ceilings": LIMITS,
    }


def test_figures_of_a_contestant(trained):
    plain, ours = trained["contestants"].values()
    assert plain["ratio"] == {"median": 1, "min": 1, "max": 1, "total": 1}
    assert ours["images_per_s"] == pytest.approx(60 / 9)
    assert ours["first_epoch_s"] == 6 and ours["steady_s"] == 1.5
    # The first epoch fills the caches: it counts in the total alone.
    assert ours["ratio"] == pytest.approx({"median": 6.5, "min": 5, "max": 8, "total": 30 / 9})
    # 2 GFLOP an image, 20 images in 1.5 s; bf16's better ceiling is 200 GFLOP/s.
    assert ours["flops_per_s"] == pytest.approx(80e9 / 3)
    assert ours["of_ceiling"] == pytest.approx(80 / 3 / 200)
    assert plain["of_ceiling"] == pytest.approx(40 / 9 / 100)


def test_figures_of_a_single_epoch():
    figures = summarise(answer(4.0), [8.0], 20, LIMITS)
    assert figures["steady_s"] == figures["first_epoch_s"] == 4
    assert figures["ratio"] == {"median": 2, "min": 2, "max": 2, "total": 2}


def test_tables_show_every_contestant_and_undefined_metrics(trained, capsys):
    display.print_train(trained)
    shown = capsys.readouterr().out
    assert all(shown.count(label) >= 2 for label in trained["contestants"])
    assert "6.50 (5.00-8.00)" in shown and "n/a" in shown and "50.00" in shown
    assert "copy 9.0 GB/s" in shown


def test_a_busy_machine_gets_a_warning(trained, capsys):
    display.warn_if_busy(trained["contestants"])
    assert "1.6" in capsys.readouterr().out  # 8 and 5 times faster
    trained["contestants"].popitem()
    display.warn_if_busy(trained["contestants"])
    assert capsys.readouterr().out == ""


def test_tables_fit_80_columns(trained, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    display.print_train(trained)
    assert "…" not in capsys.readouterr().out


def test_plot_of_the_training(trained, tmp_path):
    display.plot_train(trained, tmp_path / "bars.png")
    with Image.open(tmp_path / "bars.png") as image:
        assert min(image.size) > 200 and len(image.convert("RGB").getcolors(10**6)) > 10


def test_growth_plot_and_table_with_missing_measurements(tmp_path, capsys):
    def row(maps, size, **seconds):
        return {"maps": maps, "size": size, "contestants": seconds}

    growth = {
        "by_count": [row(2, 64, ours=0.1, slow=1.0), row(4, 64, ours=0.2)],
        "by_size": [row(4, 64, ours=0.2), row(4, 128, ours=0.8)],
    }
    display.plot_growth(growth, tmp_path / "growth.png", "a machine")
    with Image.open(tmp_path / "growth.png") as image:
        assert min(image.size) > 200
    display.print_metrics(
        {"maps": 4, "size": 64, "threads": 1, "contestants": {}, "growth": growth}
    )
    shown = capsys.readouterr().out
    assert "0.800" in shown and shown.count("1.000") == 1


def plain_config(**changes):
    config = {
        "trainer": {"devices": 1},
        "loss": {"_target_": "anomalib_rd.networks.FlattenedCosine"},
        "scheduler": None,
        "model": {"ema_decay": None},
        "data": {"transform": None},
    }
    return {**config, **changes}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"loss": {"_target_": "anomalib_rd.networks.PixelCosine"}}, "loss=flattened_cosine"),
        ({"scheduler": {"_target_": "x"}}, "scheduler=none"),
        ({"model": {"ema_decay": 0.98}}, "model.ema_decay=null"),
        ({"data": {"transform": {"_target_": "x"}}}, "data.transform=null"),
    ],
)
def test_only_the_plain_loop_refuses_unsupported_configs(changes, key):
    check(VARIANTS[0], plain_config())
    check(VARIANTS[2], plain_config(**changes))
    with pytest.raises(UserError, match=key):
        check(VARIANTS[0], plain_config(**changes))


def test_several_devices_are_refused():
    with pytest.raises(UserError, match=r"trainer\.devices"):
        check(VARIANTS[2], plain_config(trainer={"devices": 2}))


def test_compile_is_skipped_on_a_cpu_unless_chosen():
    assert "compile" not in [variant.name for variant in select_variants([], cuda=False)]
    assert "compile" in [variant.name for variant in select_variants([], cuda=True)]
    assert [variant.name for variant in select_variants(["compile", "plain"], cuda=False)] == [
        "plain",
        "compile",
    ]


def test_ceilings_are_positive_and_finite(monkeypatch):
    monkeypatch.setitem(ceilings.SIZES, "cpu", (64, 1, 4, 2**12))
    monkeypatch.setattr(ceilings, "SECONDS", 0.0)
    found = ceilings.measure_ceilings(torch.device("cpu"))
    assert set(found) == set(LIMITS)
    assert all(0 < value < 1e6 for value in found.values())


def test_peak_memory_can_be_measured_and_reset():
    before = measuring.peak_rss()
    block = torch.ones(2**25)  # 128 MiB
    peak = measuring.peak_rss()
    assert peak >= block.nbytes and peak >= before
    del block
    if measuring.reset_peak_rss():
        assert measuring.peak_rss() < peak - 100 * 2**20
