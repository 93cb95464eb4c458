"""Runs under Lightning's limits: they end, are marked, and never count as complete."""

import math

import pandas as pd
import pytest
from small_data import make_mvtec

from anomalib_rd.cli.sweep import is_complete_run
from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_record, read_scores, trainer_limits
from anomalib_rd.results.runs_table import category_table, load_runs
from anomalib_rd.results.sweeps import read_state
from anomalib_rd.training.train import train

# 6 training images are two batches an epoch; 3 normal and 4 defective test images are three.
BASE = ("data.train_batch_size=4", "data.test_batch_size=3", "report.heatmaps=7")


@pytest.fixture
def run(compose_config, tmp_path):
    """Train with limits; returns config, folder and record."""

    def start(*overrides, folder="run"):
        cfg = compose_config(*BASE, f"run_dir={tmp_path / folder}", *overrides)
        train(cfg)
        return cfg, tmp_path / folder, read_record(tmp_path / folder)

    return start


@pytest.mark.parametrize(
    ("words", "limits", "judged"),
    [
        (["fast_dev_run=true"], {"fast_dev_run": True}, 3),
        (["fast_dev_run=2"], {"fast_dev_run": 2}, 6),
        (["limit_test_batches=2"], {"limit_test_batches": 2}, 6),
        (["limit_test_batches=0.4"], {"limit_test_batches": 0.4}, 3),
        (["limit_train_batches=0.5"], {"limit_train_batches": 0.5}, 7),
        (["limit_train_batches=1", "limit_test_batches=1.0"], {"limit_train_batches": 1}, 7),
        (["overfit_batches=1"], {"overfit_batches": 1}, 7),
        (["max_time=00:00:00:00"], {"max_time": "0 s"}, 7),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_limited_run_ends_and_its_record_names_the_limits(run, words, limits, judged):
    cfg, folder, record = run(*[f"+trainer.{word}" for word in words])
    assert record["protocol"]["partial"] == {"limits": limits, "judged_images": judged}
    scores = read_scores(folder)
    assert len(scores) == judged
    assert {len(list((folder / "heatmaps").glob("*.png")))} == {judged}
    one_kind = scores["label"].nunique() == 1
    assert math.isnan(record["metrics"]["image_auroc"]) == one_kind
    assert ("image_auroc" in record["undefined"]) == one_kind
    state = read_state(folder.parent, folder.name)
    assert (state.state, state.reason) == ("partial", trainer_limits(record))
    assert not is_complete_run(folder, cfg)


def test_limits_without_effect_give_a_complete_run(run):
    words = ["+trainer.limit_test_batches=3", "+trainer.limit_train_batches=100"]
    cfg, folder, record = run(*words, "+trainer.max_time=01:00:00:00")
    assert record["protocol"]["partial"] is None and is_complete_run(folder, cfg)
    assert read_state(folder.parent, folder.name).state == "done"


def test_part_of_a_validation(run, tmp_path):

    root = make_mvtec(tmp_path / "more", categories=("cloth",), train=12)
    words = [f"data.root={root}", "validation.kind=synthetic", "data.test_batch_size=2"]
    record = run(*words, "+trainer.limit_val_batches=1")[2]
    assert record["protocol"]["partial"]["limits"] == {"limit_val_batches": 1}
    with pytest.raises(UserError, match="limit_val_batches=0"):
        run(*words, "+trainer.limit_val_batches=0", folder="none")


def test_sanity_check_is_no_point_of_the_curve(run):
    record = run("test_during_training=true", "trainer.num_sanity_val_steps=2")[2]
    assert [point["epoch"] for point in record["test_curve"]] == [1, 2]
    assert record["protocol"]["partial"] is None


@pytest.mark.parametrize(
    "word",
    [
        *("limit_test_batches=0", "limit_test_batches=0.1", "limit_test_batches=1.5"),
        *("limit_train_batches=0", "limit_train_batches=0.3", "overfit_batches=0.1"),
    ],
)
def test_a_limit_without_any_batch_is_refused_before_training(compose_config, tmp_path, word):
    with pytest.raises(UserError, match=word.partition("=")[0]):
        train(compose_config(*BASE, f"+trainer.{word}"))
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("bins", ["null", "65536"])
def test_a_category_without_evaluated_images(run, bins):
    words = ["data.unified=true", "data.category=[cloth,cable]", f"metrics.max_bins={bins}"]
    _, folder, record = run(*words, "+trainer.limit_test_batches=2")
    assert record["protocol"]["partial"]["judged_images"] == 6
    assert math.isnan(record["metrics"]["image_auroc"])
    assert not math.isnan(record["categories"]["cloth"]["image_auroc"])
    assert math.isnan(record["categories"]["cable"]["pixel_auroc"] or math.nan)
    assert len(read_scores(folder / "per_category/cable")) == 0


def test_partial_runs_are_not_pooled_with_complete_ones(run, tmp_path):
    run(folder="runs/whole")
    run("seed=1", "+trainer.limit_test_batches=2", folder="runs/part")
    runs = load_runs([tmp_path / "runs"])
    assert sorted(runs["partial"]) == ["", "limit_test_batches=2"]
    assert runs["variant"].nunique() == 2
    means: pd.DataFrame = category_table(runs)
    assert set(means["n_seeds"]) == {1}
