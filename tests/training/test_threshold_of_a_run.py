"""The threshold of a run: from normal images, never from the test set."""

import numpy as np
import pytest
import torch

from anomalib_rd.errors import UserError
from anomalib_rd.inference.load import load_run, read_run
from anomalib_rd.results.files import sha256_file
from anomalib_rd.results.record import read_record, read_scores
from anomalib_rd.results.threshold import (
    conformal_threshold,
    describe_threshold,
    images_needed,
    parse_threshold,
)
from anomalib_rd.training.build import make_data
from anomalib_rd.training.checkpoints import update_checkpoint
from anomalib_rd.training.run_checks import log_possible_rate
from anomalib_rd.training.train import train


@pytest.fixture
def run(compose_config, tmp_path):
    def start(*overrides):
        cfg = compose_config("report.gallery=0", "report.heatmaps=0", *overrides)
        train(cfg)
        return cfg, tmp_path / "run", read_run(tmp_path / "run").threshold

    return start


def scores_of(folder, samples):
    detector = load_run(folder, device="cpu")
    return [found.score for found in detector.many([sample.path for sample in samples])]


@pytest.fixture
def larger(tmp_path):
    from small_data import make_mvtec

    return make_mvtec(tmp_path / "larger", categories=("cloth",), train=12)


def test_a_threshold_from_training_images_is_optimistic(run):
    cfg, folder, threshold = run()
    assert (threshold.kind, threshold.source, threshold.optimistic) == (
        *("quantile", "training images"),
        True,
    )
    scores = scores_of(folder, make_data(cfg).split.train)
    value, promised = conformal_threshold(scores, 0.05)
    assert threshold.image == threshold.pixel == pytest.approx(value, abs=1e-5)
    assert threshold.false_positive_rate == promised == pytest.approx(1 / 7)
    assert threshold.score_std == pytest.approx(np.std(scores), abs=1e-5)
    assert threshold.normal_scores == pytest.approx(scores, abs=1e-5)
    assert threshold.at_rate(0.2).image == threshold.image
    record = read_record(folder)
    assert parse_threshold(record["threshold"], folder) == threshold
    assert sha256_file(folder / "checkpoints/last.ckpt") == record["checkpoint"]["sha256"]
    assert record["duration_s"]["threshold"] > 0


def test_the_threshold_can_use_some_of_the_training_images(run):
    cfg, folder, threshold = run("threshold.train_images=3", "trainer.max_epochs=1")
    train = make_data(cfg).split.train
    scores = scores_of(folder, [train[0], train[2], train[5]])
    assert threshold.normal_images == 3
    assert threshold.image == pytest.approx(max(scores), abs=1e-5)


def test_the_threshold_uses_held_out_images_without_defects(run, larger):
    cfg, folder, threshold = run("validation.kind=synthetic", f"data.root={larger}")
    data = make_data(cfg)
    assert (threshold.source, threshold.optimistic) == ("held-out images", False)
    assert threshold.normal_images == len(data.val_set) == 4
    value, promised = conformal_threshold(scores_of(folder, data.val_set.samples), 0.05)
    assert (threshold.image, threshold.false_positive_rate) == (
        pytest.approx(value, abs=1e-5),
        promised,
    )


def test_best_f1_on_the_validation(run, larger):
    cfg, folder, threshold = run(
        "threshold.kind=f1max",
        "validation.kind=synthetic",
        f"data.root={larger}",
        "trainer.max_epochs=3",
    )
    validation = make_data(cfg).val_set
    detector = load_run(folder, device="cpu")
    images = np.stack([validation[i]["image"].permute(1, 2, 0).numpy() for i in range(4)])
    found = list(detector.many(images))
    assert (threshold.normal_images, threshold.defect_images) == (2, 2)

    def f1(truth, flagged):
        return 2 * (truth & flagged).sum() / (truth.sum() + flagged.sum())

    labels = np.array([sample.label for sample in validation.samples]) == 1
    kept = [p.score for p, label in zip(found, labels, strict=True) if not label]
    assert threshold.normal_scores == pytest.approx(kept, abs=1e-5)
    scores = np.array([p.score for p in found])
    slack = threshold.image - 1e-6
    assert f1(labels, scores >= slack) == max(f1(labels, scores >= t - 1e-6) for t in scores)
    maps = np.stack([p.anomaly_map for p in found])
    masks = np.stack([validation[i]["mask"].numpy() for i in range(4)])
    others = np.quantile(maps, np.linspace(0.5, 0.999, 30))
    best = max(f1(masks, maps >= t) for t in others)
    assert f1(masks, maps >= threshold.pixel) >= best - 1e-3


def test_the_threshold_does_not_depend_on_the_test_set(run, mvtec_copy):
    _, folder, before = run(f"data.root={mvtec_copy}")
    for path in (mvtec_copy / "cloth/test/good").glob("*.png"):
        path.write_bytes((mvtec_copy / "cloth/test/square/000.png").read_bytes())
    scores = list(read_scores(folder)["score"])
    _, folder, after = run(f"data.root={mvtec_copy}")
    assert before == after and scores != list(read_scores(folder)["score"])


def test_the_threshold_does_not_depend_on_the_transform(run, compose_config):
    _, folder, threshold = run("+data.transform._target_=torchvision.transforms.v2.RandomInvert")
    scores = scores_of(folder, make_data(compose_config()).split.train)
    assert threshold.image == pytest.approx(max(scores), abs=1e-5)


def test_an_untrained_student_has_no_threshold_and_reads_no_training_images(run, mvtec_copy):
    for path in (mvtec_copy / "cloth/train/good").glob("*.png"):
        path.rename(path.with_suffix(".PNG")).write_bytes(b"")
    root = f"data.root={mvtec_copy}"
    with pytest.raises(UserError):
        run(root, "trainer.max_epochs=1")
    # The fingerprint alone reads their bytes.
    assert run(root, "model=untrained")[2] is None


def test_kind_none_gives_no_threshold(run):
    _, folder, threshold = run("threshold.kind=none", "trainer.max_epochs=1")
    assert threshold is None and read_record(folder)["threshold"] is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("threshold.kind=f1max",), "set validation.kind=synthetic"),
        (("threshold.false_positive_rate=0",), r"false_positive_rate=0.*between 0 and 1"),
        (("threshold.false_positive_rate=many",), "false_positive_rate=many"),
        (("threshold.false_positive_rate=null",), "false_positive_rate=None"),
        (("threshold.train_images=some",), "train_images=some"),
        (("threshold.train_images=0",), r"train_images=0.*or null for all"),
        (("threshold.kind=best",), "choose one of quantile, f1max, none"),
    ],
)
def test_wrong_threshold_values_are_refused_before_training(compose_config, tmp_path, words, why):
    with pytest.raises(UserError, match=why):
        train(compose_config(*words))
    assert not (tmp_path / "run").exists()


def test_updating_a_checkpoint_changes_nothing_else(tmp_path):
    kept = {"state_dict": {"weight": torch.arange(4.0)}, "config": {"seed": 0}, "nothing": None}
    path = tmp_path / "last.ckpt"
    torch.save(kept, path)
    update_checkpoint(path, threshold={"kind": "quantile", "image": 0.1})
    found = torch.load(path, weights_only=True)
    assert torch.equal(found["state_dict"].pop("weight"), kept["state_dict"].pop("weight"))
    assert found == {**kept, "threshold": {"kind": "quantile", "image": 0.1}}
    bits = path.read_bytes()
    update_checkpoint(path, threshold={"kind": "quantile", "image": 0.1})
    assert path.read_bytes() == bits
    # A run resumed after its training, and told otherwise.
    update_checkpoint(path, threshold=None)
    assert torch.load(path, weights_only=True)["threshold"] is None


def test_an_impossible_rate_is_logged_at_the_start_and_recorded(run, larger, caplog):
    """Four of 12 normal images are held out: they allow a rate of 1 in 5; 2 % needs 49."""
    words = ("validation.kind=synthetic", "threshold.false_positive_rate=0.02")
    with caplog.at_level("INFO", "anomalib_rd"):
        folder = run(f"data.root={larger}", "trainer.max_epochs=1", *words)[1]
    (told,) = [r for r in caplog.records if "false_positive_rate=0.02" in r.message]
    assert told.levelname == "WARNING"
    assert " 49 " in told.message and " 4 held-out" in told.message and "20 %" in told.message
    record = read_record(folder)
    kept = record["threshold"]
    assert (kept["requested_rate"], kept["false_positive_rate"]) == (0.02, 0.2)
    line = describe_threshold(record, folder)
    assert all(part in line for part in ("20 %", "4 held-out images", "2 %", "49"))


@pytest.mark.parametrize(
    ("words", "allowed"),
    [(("threshold.false_positive_rate=0.2",), "14 %"), (("threshold.train_images=3",), "25 %")],
)
def test_the_rate_that_training_images_allow_is_logged(compose_config, caplog, words, allowed):
    cfg = compose_config(*words)
    with caplog.at_level("INFO", "anomalib_rd"):
        log_possible_rate(
            cfg.threshold.false_positive_rate, cfg.threshold.train_images, make_data(cfg)
        )
    (told,) = caplog.records
    assert allowed in told.message
    assert (told.levelname == "INFO") == (allowed == "14 %")


@pytest.mark.parametrize(("rate", "needed"), [(0.02, 49), (0.05, 19), (0.1, 9), (0.3, 3), (0.9, 1)])
def test_number_of_images_for_a_rate(rate, needed):
    assert images_needed(rate) == needed
    assert conformal_threshold(np.arange(needed), rate)[1] <= rate + 1e-9
    if needed > 1:
        assert conformal_threshold(np.arange(needed - 1), rate)[1] > rate
