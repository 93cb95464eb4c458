"""One run in this process: determinism, the last-epoch protocol, the record."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from anomalib_rd.cli import main
from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_curves, read_record
from anomalib_rd.training.build import make_data, make_evaluator, make_module, make_trainer
from anomalib_rd.training.train import train


@pytest.fixture
def run(compose_config, tmp_path):
    """Train; returns the record and the folder."""

    def start(*overrides, folder="run"):
        path = tmp_path / folder
        cfg = compose_config(*overrides, f"run_dir={path}")
        train(cfg)
        return read_record(path), path

    return start


def weights(folder):
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


def test_same_seed_same_bits_and_another_seed_others(run):
    first, a = run("model=fmg_rd", folder="a")
    second, b = run("model=fmg_rd", folder="b")
    other, c = run("model=fmg_rd", "seed=1", folder="c")
    assert first["metrics"] == second["metrics"]
    assert (a / "scores.csv").read_bytes() == (b / "scores.csv").read_bytes()
    assert all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())
    assert (a / "scores.csv").read_bytes() != (c / "scores.csv").read_bytes()
    assert other["seed"] == 1


def test_the_record_is_complete_and_correct(run, mvtec_root):
    record, folder = run("model=rd4ad", "report.heatmaps=8")
    assert record["data"]["category"] == "cloth"
    assert record["data"]["train_images"] == 6
    assert record["data"]["test_images"] == {"good": 3, "square": 4}
    assert record["protocol"]["headline"] == "last epoch" and record["protocol"]["epochs"] == 2
    assert record["undefined"] == {} and record["oracle"] is None and record["test_curve"] == []
    assert len(record["loss_curve"]) == 2 and all(0 < loss < 6 for loss in record["loss_curve"])
    assert set(record["metrics"]) == {
        *("image_auroc", "image_ap", "image_f1max"),
        *("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_5"),
    }
    assert all(0 <= value <= 1 for value in record["metrics"].values())
    assert record["config"]["data"]["root"] == str(mvtec_root)
    assert record["duration_s"]["train"] > 0 and record["images_per_s"]["test"] > 0
    table = pd.read_csv(folder / "scores.csv")
    assert len(table) == 7 and table["path"][0] == "cloth/test/good/000.png"
    assert len(list((folder / "heatmaps").glob("*.png"))) == 7
    curves = read_curves(folder)
    # The record's figures can be had again from the files beside it.
    area = np.trapezoid(curves["image_roc_tpr"], curves["image_roc_fpr"])
    assert area == pytest.approx(record["metrics"]["image_auroc"])


def test_a_checkpoint_without_the_teacher_restores_the_evaluated_network(run, compose_config):
    record, folder = run("model=fmg_rd")
    assert not any("teacher" in key for key in weights(folder))
    cfg = compose_config("model=fmg_rd", "seed=5")
    data = make_data(cfg)
    evaluator = make_evaluator(cfg, data)
    make_trainer(cfg, [evaluator]).test(
        make_module(cfg), datamodule=data, ckpt_path=folder / "checkpoints/last.ckpt", verbose=False
    )
    assert evaluator.result.metrics == record["metrics"]


def test_the_test_curve_changes_nothing(run):
    """With the optional curve, networks and headline stay the same."""
    blind, a = run("model=fmg_rd", folder="a")
    looked, b = run(
        "model=fmg_rd", "test_during_training=true", "metrics.pro_rd4ad=true", folder="b"
    )
    assert all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())
    assert {k: looked["metrics"][k] for k in blind["metrics"]} == blind["metrics"]
    assert 0 <= looked["metrics"]["pro_rd4ad"] <= 1
    assert [point["epoch"] for point in looked["test_curve"]] == [1, 2]
    last = {k: v for k, v in looked["test_curve"][-1].items() if k != "epoch"}
    assert last == looked["metrics"]
    best = max(point["image_auroc"] for point in looked["test_curve"])
    assert looked["oracle"]["image_auroc"] == best


def test_batch_size_of_the_test_changes_nothing(run):
    one, _ = run("data.test_batch_size=1", folder="a")
    five, _ = run("data.test_batch_size=5", folder="b")
    for name, value in one["metrics"].items():
        assert five["metrics"][name] == pytest.approx(value, abs=1e-6)


def test_untrained_is_a_fresh_student(run):
    record, folder = run("model=untrained")
    assert record["protocol"]["epochs"] == 0 and record["images_per_s"]["train"] is None
    assert (folder / "checkpoints/last.ckpt").is_file()


def test_training_lowers_the_loss_and_finds_the_squares(run):
    pretrained = "model.teacher={name: tf_efficientnet_lite0.in1k, weights: embedded}"
    record, _ = run("model=rd4ad", pretrained, "trainer.max_epochs=25")
    assert record["loss_curve"][-1] < 0.6 * record["loss_curve"][0]
    assert record["metrics"]["pixel_auroc"] > 0.9


def test_without_masks_only_image_metrics_are_defined(run, tmp_path):
    from small_data import make_mvtec

    root = make_mvtec(tmp_path / "bare", categories=("cloth",), masks=False)
    record, _ = run(f"data.root={root}")
    assert 0 <= record["metrics"]["image_auroc"] <= 1
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_5"):
        assert math.isnan(record["metrics"][name])
        assert record["undefined"][name] == "4 of 4 defect images have no ground-truth mask"


def test_a_missing_mask_makes_pixel_metrics_undefined(run, mvtec_copy):
    (mvtec_copy / "cloth/ground_truth/square/001_mask.png").unlink()
    record, _ = run(f"data.root={mvtec_copy}")
    assert record["undefined"]["aupro"] == "1 of 4 defect images have no ground-truth mask"


def test_truncated_image_is_named_from_a_worker_too(compose_config, mvtec_copy):
    path = mvtec_copy / "cloth/train/good/002.png"
    path.write_bytes(path.read_bytes()[:300])
    for workers in (0, 1):
        cfg = compose_config(f"data.root={mvtec_copy}", f"data.num_workers={workers}")
        with pytest.raises(UserError, match=r"002\.png"):
            train(cfg)


def test_several_categories_need_a_multirun(compose_config):
    with pytest.raises(UserError, match="add -m"):
        train(compose_config("data.category=all"))


def test_an_unknown_optimized_metric_is_named(compose_config):
    with pytest.raises(UserError, match="optimized_metric=nothing"):
        train(compose_config("optimized_metric=nothing", "trainer.max_epochs=1"))


def test_gpu_asked_for_and_absent(compose_config):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match=r"^trainer: .*gpu"):
        train(compose_config("trainer=gpu"))


def test_folder_of_own_images(run, tmp_path):
    from small_data import draw

    rng = np.random.default_rng(0)
    for kind, count in (("normal", 10), ("defect/dent", 3)):
        folder = tmp_path / "parts" / kind
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(draw(rng, 70, kind != "normal")[0]).save(folder / f"{i}.jpg")
    record, _ = run("data=folder", f"data.root={tmp_path / 'parts'}", "data.category=all")
    assert record["data"]["category"] == "parts"
    assert record["data"]["test_images"]["dent"] == 3
    assert record["data"]["train_images"] + record["data"]["test_images"]["good"] == 10


def test_a_few_normal_images_without_defects_are_a_complete_run(tmp_path, mvtec_root):
    """One test image and no defined metric; heatmap and threshold are written."""
    shutil.copytree(mvtec_root / "cloth/train/good", tmp_path / "parts/normal")
    for path in sorted((tmp_path / "parts/normal").iterdir())[3:]:
        path.unlink()
    words = [f"data.root={tmp_path / 'parts'}", "data.source.defect=null", "trainer=cpu"]
    words += ["data.image_size=[64,64]", "data.num_workers=0", "trainer.max_epochs=1"]
    main(["train", "data=folder", *words, "logger=none", f"hydra.run.dir={tmp_path / 'run'}"])
    record = read_record(tmp_path / "run")
    assert record["data"]["test_images"] == {"good": 1} and record["data"]["train_images"] == 2
    assert all(math.isnan(value) for value in record["metrics"].values())
    assert set(record["undefined"]) == set(record["metrics"])
    assert record["threshold"]["normal_images"] == 2
    assert len(list((tmp_path / "run/heatmaps").iterdir())) == 1
    assert (tmp_path / "run/report.html").is_file()
