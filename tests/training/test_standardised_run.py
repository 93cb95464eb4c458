"""A run with standardised scores: its statistics of normal images, also after loading."""

import numpy as np
import pandas as pd
import pytest
import torch

from anomalib_rd.inference.load import load_run, read_run
from anomalib_rd.results.record import read_record, read_scores
from anomalib_rd.training.build import make_data
from anomalib_rd.training.train import train

STANDARDISED = ("model/scoring=standardised", "report.gallery=0", "report.heatmaps=0")


@pytest.fixture
def run(compose_config, tmp_path):
    def start(*overrides):
        cfg = compose_config(*STANDARDISED, *overrides)
        train(cfg)
        return cfg, tmp_path / "run"

    return start


def test_the_statistics_are_of_all_training_images_after_training(run):
    cfg, folder = run()
    state = read_run(folder).state
    detector = load_run(folder, device="cpu")
    normal = [detector(sample.path).anomaly_map for sample in make_data(cfg).split.train]
    np.testing.assert_allclose(state["scorer.mean"], np.mean(normal, 0), atol=1e-5)
    std = np.std(normal, 0, ddof=1)
    np.testing.assert_allclose(state["scorer.scale"], std + std.mean(), atol=1e-5)


def test_the_loaded_run_gives_the_recorded_scores(run, mvtec_root):
    _, folder = run()
    recorded = read_scores(folder)
    detector = load_run(folder, device="cpu")
    found = [detector(mvtec_root / path).score for path in recorded["path"]]
    assert found == pytest.approx(list(recorded["score"]), rel=1e-3)
    threshold = detector.threshold
    assert threshold.image != threshold.pixel  # deviations, and the map's own values
    assert threshold.with_given_value(2.0).pixel == threshold.pixel


def test_maps_and_pixel_metrics_are_those_of_the_plain_scorer(run, compose_config, tmp_path):
    _, folder = run()
    plain = compose_config("report.gallery=0", "report.heatmaps=0", f"run_dir={tmp_path / 'plain'}")
    train(plain)
    ours, rd4ads = (read_record(f)["metrics"] for f in (folder, tmp_path / "plain"))
    assert ours["aupro"] == rd4ads["aupro"] and ours["pixel_ap"] == rd4ads["pixel_ap"]
    a, b = read_scores(folder), read_scores(tmp_path / "plain")
    assert not np.allclose(a["score"], b["score"])


def test_a_validation_at_the_last_epoch_has_the_statistics_of_the_end(
    run, compose_config, tmp_path
):
    words = (
        "validation.kind=synthetic",
        "validation.fraction=0.5",
        "trainer.check_val_every_n_epoch=1",
    )
    root = grown(tmp_path)
    _, folder = run(*words, f"data.root={root}")
    looked = read_record(folder)["validation"]
    cfg = compose_config(
        *STANDARDISED,
        *words[:2],
        f"data.root={root}",
        f"run_dir={tmp_path / 'late'}",
        "trainer.check_val_every_n_epoch=100",
    )  # judged after the training, not in it
    train(cfg)
    assert looked == read_record(tmp_path / "late")["validation"]


def grown(tmp_path):
    from small_data import make_mvtec

    return make_mvtec(tmp_path / "larger", categories=("cloth",), train=12)


def test_evaluate_gives_the_same_bits(run):
    from anomalib_rd.cli.evaluate import evaluation_config
    from anomalib_rd.inference.evaluate import evaluate

    _, folder = run()
    trained = read_run(folder)
    record = evaluate(
        trained, evaluation_config(trained, [], folder / "again", None), folder / "again"
    )
    assert record["evaluation"]["equal"] is True
    pd.testing.assert_series_equal(
        read_scores(folder)["score"], read_scores(folder / "again")["score"]
    )
    assert torch.isfinite(trained.state["scorer.mean"]).all()
