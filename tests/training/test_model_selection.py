"""Model selection without the test set: synthetic validation, early stopping, searches."""

import json
import logging

import pytest
import torch
from interrupting import PowerCutError, stopping
from small_data import make_mvtec

from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_record, read_scores
from anomalib_rd.training.train import train

METRICS = {"image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max"}
METRICS |= {"aupro", "aupro_5"}
LOGGED = "lightning.pytorch.loggers.CSVLogger"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve training images, of which eight are trained on."""
    return make_mvtec(tmp_path_factory.mktemp("twelve"), categories=("cloth",), train=12)


@pytest.fixture
def run(compose_config, tmp_path, root):
    """Train a small RD4AD; returns the folder."""

    def start(folder, *overrides):
        path = tmp_path / folder
        words = [
            "model=rd4ad",
            "report.heatmaps=0",
            "report.gallery=0",
            f"data.root={root}",
            f"run_dir={path}",
        ]
        train(compose_config(*words, "data.train_batch_size=4", "callbacks=none", *overrides))
        return path

    return start


@pytest.fixture(autouse=True)
def one_thread():
    """Enough for tiny images, and faster beside other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def logged(folder, prefix):
    """Epoch and metrics of each evaluation, from the CSV logger's file."""
    import pandas as pd

    table = pd.read_csv(next(folder.rglob("metrics.csv")))
    columns = [column for column in table if column.startswith(prefix)]
    return table.dropna(subset=columns, how="all")[["epoch", *columns]].to_dict("records")


def test_the_record_holds_the_validation_images_and_metrics(run):
    folder = run("run", "validation.kind=synthetic", "validation.fraction=0.25", "logger=csv")
    record = read_record(folder)
    assert record["data"]["train_images"] == 8
    assert record["data"]["test_images"] == {"good": 3, "square": 4}
    assert record["protocol"]["validation"] == {
        "kind": "synthetic",
        "images": {"good": 2, "synthetic": 2},
        "share": 0.25,
    }
    assert record["protocol"]["headline"] == "last epoch"
    assert record["protocol"]["chosen_on_test"] is False
    assert set(record["validation"]) == METRICS
    looks = logged(folder, "val/")
    assert [look["epoch"] for look in looks] == [0, 1]  # Lightning counts from 0
    assert {f"val/{name}" for name in METRICS} == set(looks[1]) - {"epoch"}
    for name, value in record["validation"].items():
        assert looks[1][f"val/{name}"] == pytest.approx(value)
    # The test images and only they are in the scores.
    assert all("/test/" in path for path in read_scores(folder)["path"])
    assert len(read_scores(folder)) == 7


def test_nothing_is_held_out_by_default(run):
    record = read_record(run("run", "trainer.max_epochs=1"))
    assert record["data"]["train_images"] == 12 and record["validation"] is None
    assert record["protocol"]["validation"] is None


def test_validation_and_test_curve_change_no_weight_and_stay_separate(run):
    words = ["validation.kind=synthetic", "callbacks=default"]
    one = run("one", *words, "speed.feature_cache=off", "speed.image_cache=false")
    both = run("both", *words, "test_during_training=true", "data.test_batch_size=3")
    assert all(torch.equal(value, weights(both)[name]) for name, value in weights(one).items())
    first, second = read_record(one), read_record(both)
    assert first["metrics"] == pytest.approx(second["metrics"])
    assert first["validation"] == pytest.approx(second["validation"], abs=1e-4)
    assert first["validation"] != pytest.approx(first["metrics"])
    last = {k: v for k, v in second["test_curve"][-1].items() if k != "epoch"}
    assert last == second["metrics"] and len(second["test_curve"]) == 2


def test_the_last_epoch_is_validated_whatever_the_interval(run):
    words = ["validation.kind=synthetic", "trainer.max_epochs=3", "logger=csv"]
    always = read_record(run("always", *words))
    rarely = run("rarely", *words, "trainer.check_val_every_n_epoch=2", "test_during_training=true")
    record = read_record(rarely)
    assert record["validation"] == always["validation"]
    assert record["metrics"] == always["metrics"]
    assert [point["epoch"] for point in record["test_curve"]] == [2]
    assert len(logged(rarely, "val/")) == 2


def test_an_untrained_network_is_validated_too(run, compose_config, root):
    record = read_record(run("run", "validation.kind=synthetic", "model=untrained"))
    assert set(record["validation"]) == METRICS and record["protocol"]["epochs"] == 0
    words = ["model=untrained", f"data.root={root}", "validation.kind=synthetic"]
    objective = train(compose_config(*words, "optimized_metric=val/aupro"))
    assert objective == pytest.approx(record["validation"]["aupro"])


def test_validation_metrics_are_streamed_too(run):
    words = ["validation.kind=synthetic", "trainer.max_epochs=1"]
    coarse, exact = (
        read_record(run(str(bins), *words, f"metrics.max_bins={bins}"))["validation"]
        for bins in (64, "null")
    )
    assert coarse["image_auroc"] == exact["image_auroc"]
    assert coarse["pixel_ap"] != exact["pixel_ap"] == pytest.approx(coarse["pixel_ap"], abs=0.2)


def test_missing_masks_of_the_test_set_do_not_affect_the_validation(run, tmp_path):
    bare = make_mvtec(tmp_path / "bare", categories=("cloth",), train=8, masks=False)
    record = read_record(run("run", "validation.kind=synthetic", f"data.root={bare}"))
    assert record["metrics"]["aupro"] != record["metrics"]["aupro"]
    assert 0 <= record["validation"]["aupro"] <= 1


# A validation that can't improve: the threshold of improvement is out of reach.
STOPPING = ["validation.kind=synthetic", "callbacks=early_stopping", "trainer.max_epochs=5"]
STOPPING += ["callbacks.early_stopping.patience=1", "+callbacks.early_stopping.min_delta=2"]
STOPPING += ["callbacks.checkpoint.every_s=0"]


def leaving(folder):
    record = read_record(folder)
    return record["metrics"], record["validation"], record["protocol"]["epochs"]


@pytest.mark.slow
def test_a_resumed_run_stops_early_at_the_same_epoch(run, tmp_path):
    whole = run("whole", *STOPPING)
    # The first validation is the best, one more is waited for.
    assert read_record(whole)["protocol"]["epochs"] == 2
    assert read_record(whole)["protocol"]["headline"] == "last epoch"
    for epoch in (1, None):  # within the second epoch, and at the test
        with pytest.raises(PowerCutError):
            run("cut", *STOPPING, *stopping(tmp_path / f"{epoch}.marker", epoch=epoch))
    cut = run("cut", *STOPPING)
    assert leaving(cut) == leaving(whole)
    assert all(torch.equal(value, weights(cut)[name]) for name, value in weights(whole).items())
    assert read_record(cut)["protocol"]["resumed_from_epoch"] == 2


def test_early_stopping_counts_validations_not_epochs(run):
    words = ["trainer.check_val_every_n_epoch=2", "~callbacks.checkpoint"]
    words += ["+trainer.enable_checkpointing=false"]
    stopping_words = [word for word in STOPPING if "every_s" not in word]
    record = read_record(run("run", *stopping_words, *words))
    assert record["protocol"]["epochs"] == 4


def test_an_improving_metric_does_not_stop_the_training(run):
    better = ["callbacks.early_stopping.monitor=train/loss", "callbacks.early_stopping.mode=min"]
    words = [word for word in STOPPING if "min_delta" not in word]
    record = read_record(run("run", *words, *better, "trainer.max_epochs=3"))
    assert record["protocol"]["epochs"] == 3


REFUSED = {
    "unknown metric": (
        ["optimized_metric=val/image_aroc", "validation.kind=synthetic"],
        "optimized_metric=val/image_aroc.*val/image_auroc",
    ),
    "curve not asked for": (
        ["optimized_metric=test_curve/image_auroc", "optimize_on_test=true"],
        "optimized_metric=test_curve/image_auroc",
    ),
    "unknown monitor": (
        [
            "callbacks=early_stopping",
            "validation.kind=synthetic",
            "callbacks.early_stopping.monitor=val/x",
        ],
        "monitor=val/x",
    ),
    "early stopping without validation": (
        ["callbacks=early_stopping"],
        r"callbacks.early_stopping.monitor=val/image_auroc: .*set validation.kind=synthetic",
    ),
    "early stopping on the test set": (
        ["callbacks=early_stopping", "callbacks.early_stopping.monitor=test_curve/aupro"],
        "early_stopping.monitor=test_curve/aupro",
    ),
    "a search without validation": (
        ["optimized_metric=val/image_auroc"],
        r"^optimized_metric=val/image_auroc: .*set validation.kind=synthetic",
    ),
    "a search on the test set": (
        ["optimized_metric=test/image_auroc"],
        r"^optimized_metric=test/image_auroc: .*or add optimize_on_test=true",
    ),
    "a search on the test curve": (
        ["optimized_metric=test_curve/aupro", "test_during_training=true"],
        "optimized_metric=test_curve/aupro",
    ),
    "an unknown validation": (
        ["validation.kind=real"],
        "validation.kind=real",
    ),
    "too few images": (
        ["validation.kind=synthetic", "data.category=cable"],
        r"\b6 .* 4\b",
    ),
}


@pytest.mark.parametrize("words, said", REFUSED.values(), ids=REFUSED)
def test_wrong_model_selection_is_refused_in_one_line(compose_config, tmp_path, words, said):
    with pytest.raises(UserError, match=said) as refused:
        train(compose_config(*words))
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_a_search_on_the_test_set_is_noted_in_log_and_record(compose_config, tmp_path, caplog):
    words = ["model=untrained", "report.heatmaps=0", "optimized_metric=test/image_auroc"]
    with caplog.at_level(logging.WARNING):
        value = train(compose_config(*words, "++optimize_on_test=true"))
    assert "optimized_metric=test/image_auroc" in caplog.text
    record = json.loads((tmp_path / "run/result.json").read_text())
    assert record["protocol"]["chosen_on_test"] is True
    assert value == pytest.approx(record["metrics"]["image_auroc"])
