"""One model for several categories: its images, its evaluation and its files."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from interrupting import PowerCutError, stopping
from scipy.stats import rankdata
from small_data import make_mvtec

from anomalib_rd.cli import main
from anomalib_rd.data import AnomalyDataModule
from anomalib_rd.data.sources.layouts import MVTecAD
from anomalib_rd.results.files import read_json
from anomalib_rd.results.gallery import Gallery
from anomalib_rd.results.record import category_folder, read_curves, read_record, read_scores
from anomalib_rd.results.runs_table import load_runs
from anomalib_rd.results.statistics import compare_variants
from anomalib_rd.training.evaluation import EvaluationResult, mean_over_categories
from anomalib_rd.training.train import train

NAMES = ["cloth", "cable"]
WORDS = ["data=mvtec", "data.image_size=[64,64]", "data.num_workers=0", "trainer=cpu"]
WORDS += ["trainer.max_epochs=2", "logger=csv", "report.html=false", "sweep=s", "report.heatmaps=2"]
WORDS += ["validation.kind=synthetic", "validation.fraction=0.4", "test_during_training=true"]
TOGETHER = ["data.unified=true", "data.category=cloth,cable"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two categories of different sizes."""
    folder = tmp_path_factory.mktemp("unified")
    make_mvtec(folder, categories=("cloth",), train=10)
    return make_mvtec(folder, categories=("cable",), train=12, bad=6)


@pytest.fixture(scope="module")
def sweep(root, tiny_teacher, tmp_path_factory):
    """One model for both, and one for each."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in (TOGETHER, ["data.category=cloth,cable"]):
            main(["train", "-m", *tiny_teacher, *WORDS, f"data.root={root}", *words])
    return folder / "multirun/s"


@pytest.fixture(scope="module")
def run(sweep):
    (found,) = (sweep / "cloth+cable").iterdir()
    return found


def auroc(scores):
    """Mann and Whitney's U over the number of pairs."""
    ranks, defect = rankdata(scores["score"]), scores["label"].to_numpy() == 1
    count = defect.sum()
    u = ranks[defect].sum() - count * (count + 1) / 2
    return u / (count * (len(defect) - count))


def test_one_run_has_the_images_of_all(run):
    record = read_record(run)
    assert record["data"]["category"] == "cloth+cable" and record["name"].endswith("cloth+cable-s0")
    assert record["config"]["data"]["category"] == NAMES
    held_out = record["protocol"]["validation"]["images"]
    assert record["data"]["train_images"] + sum(held_out.values()) == 22
    assert record["data"]["test_images"] == {"good": 6, "square": 10}
    assert list(read_scores(run)["category"]) == ["cloth"] * 7 + ["cable"] * 9
    # One threshold: whoever uses the model does not say the category.
    assert record["threshold"]["normal_images"] == sum(held_out.values()) == 9


def test_each_category_is_evaluated_on_its_own_images(run):
    scores, record = read_scores(run), read_record(run)
    for name in NAMES:
        folder, own = category_folder(run, name), scores[scores["category"] == name]
        assert read_scores(folder).equals(own.reset_index(drop=True))
        part = read_record(folder)
        assert part["metrics"]["image_auroc"] == pytest.approx(auroc(own))
        assert part["metrics"] == record["categories"][name]
        assert part["data"]["category"] == name
        assert (folder / part["checkpoint"]["path"]).resolve() == run / "checkpoints/last.ckpt"
        assert part["threshold"] == record["threshold"]
        assert list(read_curves(folder)) and len(list((folder / "heatmaps").iterdir())) == 2
        with Gallery(folder) as gallery:
            assert gallery.paths == list(own["path"])
    for metric, value in record["metrics"].items():
        parts = [record["categories"][name][metric] for name in NAMES]
        assert value == pytest.approx(np.mean(parts))


def test_curves_and_validation_exist_per_category_and_as_mean(run):
    record = read_record(run)
    parts = [read_record(category_folder(run, name)) for name in NAMES]
    for whole, *own in zip(record["test_curve"], *(p["test_curve"] for p in parts), strict=True):
        assert {point["epoch"] for point in own} == {whole["epoch"]}
        assert whole["aupro"] == pytest.approx(np.mean([point["aupro"] for point in own]))
    assert [point["epoch"] for point in record["test_curve"]] == [1, 2]
    validation = [part["validation"]["pixel_ap"] for part in parts]
    assert record["validation"]["pixel_ap"] == pytest.approx(np.mean(validation))
    logged = pd.read_csv(run / "csv/metrics.csv")
    for name, part in zip(NAMES, parts, strict=True):
        drawn = logged[f"test_curve/{name}/aupro"].dropna()
        assert list(drawn) == pytest.approx([point["aupro"] for point in part["test_curve"]])
        last = {k: v for k, v in part["test_curve"][-1].items() if k != "epoch"}
        assert last == part["metrics"]
        assert part["oracle"]["epoch"] == record["oracle"]["epoch"]


def test_a_unified_model_is_paired_with_models_for_each_category(sweep):
    runs = load_runs([sweep])
    assert len(runs) == 4 and list(runs["unified"]) == [False, False, True, True]
    # The same images, held out alike.
    assert (runs.groupby("category")["fingerprint"].nunique() == 1).all()
    records = runs["run"].map(read_record)
    counts = [record["protocol"]["validation"]["images"] for record in records]
    assert counts[:2] == counts[2:]
    table = compare_variants(runs)
    assert set(table["n_pairs"]) == {2} and set(table["n_left_out"]) == {0}
    assert set(table["variant"].str.rsplit(" ", n=1).str[-1]) == {"unified=true"}


def test_the_same_command_again_runs_nothing(sweep, root, tiny_teacher, monkeypatch, capsys):
    monkeypatch.chdir(sweep.parents[1])
    with pytest.raises(SystemExit) as stop:
        main(["train", "-m", *tiny_teacher, *WORDS, f"data.root={root}", *TOGETHER])
    assert stop.value.code == 0 and "all 1 runs" in capsys.readouterr().out


def evaluated(run, name, *words):
    assert main(["evaluate", str(run), "--device", "cpu", "--name", name, *words]) == 0
    return run / "evaluations" / name


def test_an_evaluation_equals_the_record_of_each_category(run):
    folder = evaluated(run, "again", "report.heatmaps=0", "report.gallery=0")
    made = read_json(folder / "evaluation.json")
    assert made["categories"] == read_record(run)["categories"] and made["evaluation"]["equal"]
    for name in NAMES:
        own, kept = category_folder(folder, name), category_folder(run, name)
        part = read_json(own / "evaluation.json")
        assert part["metrics"] == read_record(kept)["metrics"] and part["evaluation"]["equal"]
        checkpoint = (own / part["checkpoint"]["path"]).resolve()
        assert checkpoint == run / "checkpoints/last.ckpt"
        curves, recorded = read_curves(own), read_curves(kept)
        assert all(np.array_equal(curves[key], recorded[key]) for key in recorded)


def test_an_evaluation_on_one_category_is_compared_with_its_record(run, capsys):
    made = read_json(evaluated(run, "one", "data.category=cable") / "evaluation.json")
    assert made["data"]["category"] == "cable" and made["evaluation"]["same_data"]
    recorded = read_record(category_folder(run, "cable"))["metrics"]
    assert made["metrics"] == pytest.approx(recorded, abs=1e-4)  # other batches
    assert main(["evaluate", str(run), "report.heatmaps=1,2"]) == 2
    assert "report.heatmaps=1,2: " in capsys.readouterr().err


def test_an_interrupted_unified_run_ends_with_the_same_bits(run, root, compose_config, tmp_path):
    words = [*WORDS, f"data.root={root}", "data.unified=true", "data.category=[cloth,cable]"]
    words += [f"run_dir={tmp_path / 'cut'}", "callbacks.checkpoint.every_s=0", "logger=none"]
    words += stopping(tmp_path / "marker", epoch=1)
    with pytest.raises(PowerCutError):
        train(compose_config(*words))
    train(compose_config(*words))
    for place in (".", *(f"per_category/{name}" for name in NAMES)):
        cut, whole = read_record(tmp_path / "cut" / place), read_record(run / place)
        assert cut["protocol"]["resumed_from_epoch"] == 1
        for part in ("metrics", "test_curve", "validation", "loss_curve", "oracle"):
            assert cut[part] == whole[part]


def test_several_categories_need_unified_or_multirun(root, capsys):
    assert main(["train", *WORDS, f"data.root={root}", "data.category=cloth,cable"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "add -m to train one model each, or data.unified=true" in line


def test_each_category_holds_out_the_same_images_as_alone(root):
    def module(category):
        return AnomalyDataModule(MVTecAD(root), category, (64, 64), val="synthetic", num_workers=0)

    both = module(NAMES)
    alone = [module(name) for name in NAMES]
    assert both.train_set.samples == [s for one in alone for s in one.train_set.samples]
    assert both.split.test == [s for one in alone for s in one.split.test]
    kept = Counter((s.path, s.label) for one in alone for s in one.val_set.samples)
    assert Counter((s.path, s.label) for s in both.val_set.samples) == kept


def test_a_metric_undefined_for_one_category_has_no_mean():
    full = EvaluationResult({"image_auroc": 0.5, "aupro": 0.25}, bounds={"aupro": (0.2, 0.3)})
    lacking = EvaluationResult({"image_auroc": 1.0, "aupro": float("nan")}, {"aupro": "no masks"})
    found = mean_over_categories({"a": full, "b": lacking})
    assert found.metrics["image_auroc"] == 0.75 and np.isnan(found.metrics["aupro"])
    assert found.undefined == {"aupro": "b: no masks"} and found.bounds == {}
    assert mean_over_categories({"a": full}) is full


def test_pixels_are_streamed_per_category(run, root, compose_config, tmp_path):
    words = ["model=untrained", "report.heatmaps=0", "report.gallery=0", f"data.root={root}"]
    words += ["data.unified=true", "data.category=[cloth,cable]", "data.test_batch_size=4"]
    for name, bins in (("exact", "null"), ("streamed", "1048576")):
        train(compose_config(*words, f"metrics.max_bins={bins}", f"run_dir={tmp_path / name}"))
    exact, streamed = (read_record(tmp_path / name) for name in ("exact", "streamed"))
    for name in NAMES:
        assert streamed["categories"][name] == pytest.approx(exact["categories"][name], abs=1e-6)
    least, most = streamed["bounds"]["aupro"]
    assert least <= streamed["metrics"]["aupro"] <= most
