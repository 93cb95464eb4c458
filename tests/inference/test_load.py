"""A run loaded from disk scores as at the end of its training; problems are UserErrors."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_rd import load_run
from anomalib_rd.components import targets
from anomalib_rd.errors import UserError
from anomalib_rd.inference.load import read_run
from anomalib_rd.results.record import read_record, read_scores


@pytest.fixture(scope="module")
def detector(run):
    return load_run(run, device="cpu")


@pytest.fixture(scope="module")
def files(run, data_root):
    return [data_root / path for path in read_scores(run)["path"]]


def test_scores_are_those_of_the_test_at_the_end_of_training(run, detector, files):
    recorded = read_scores(run)["score"]
    predictions = list(detector.many(files, batch_size=3))
    assert [one.score for one in predictions] == pytest.approx(list(recorded), abs=1e-5)
    assert all(one.anomaly_map.max() == np.float32(one.score) for one in predictions)


def test_batches_change_scores_by_rounding_alone(detector, files):
    one_by_one = [detector(file).score for file in files]
    assert [p.score for p in detector.many(files, 4)] == pytest.approx(one_by_one, abs=1e-5)


def test_the_same_image_in_any_form_has_the_same_score(detector, files):
    score = detector(files[0]).score
    image = Image.open(files[0])
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    alpha = np.dstack([array, np.full(array.shape[:2], 7, np.uint8)])
    ways = [str(files[0]), image, array, array / 255, (array / 255).astype(np.float32), tensor]
    ways += [tensor / 255, array.astype(np.uint16) * 257, alpha, image.convert("RGBA")]
    assert [p.score for p in detector.many(ways, 1)] == [score] * len(ways)
    stack = np.stack([array, array])
    assert [p.score for p in detector.many(stack, 1)] == [score] * 2


def test_grey_arrays_equal_grey_images(detector, files):
    grey = Image.open(files[1]).convert("L")
    array = np.asarray(grey)
    ways = [grey, array, array[..., None], torch.from_numpy(array[None].copy())]
    assert len({p.score for p in detector.many(ways, 1)}) == 1


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "many"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.full((8, 8), 1.5), r"1\.5"),
        (np.full((8, 8), np.nan), "nan"),
        (np.zeros((0, 8)), "float64|pixels"),
        ({"path": "a.png"}, "dict"),
        ("nowhere.png", r"nowhere\.png"),
    ],
)
def test_invalid_images_are_refused(detector, image, word):
    with pytest.raises(UserError, match=word):
        detector(image)


def test_an_unreadable_image_gives_an_error_among_the_predictions(detector, files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:200])
    asked = [files[0], broken, files[1], files[2]]
    predictions = list(detector.many_or_errors(asked, batch_size=2))
    assert [isinstance(one, UserError) for one in predictions] == [False, True, False, False]
    assert predictions[2].score == pytest.approx(detector(files[1]).score, abs=1e-5)
    with pytest.raises(UserError, match=r"broken\.png"):
        list(detector.many(asked))


def test_images_are_read_lazily(detector, files):
    """An endless stream can be scored, and stopped."""
    asked = []

    def stream():
        while True:
            asked.append(len(asked))
            yield files[0]

    predictions = detector.many(stream(), batch_size=2)
    next(predictions)
    predictions.close()
    assert len(asked) <= 8


def test_maps_have_the_size_of_the_network_or_of_the_image(detector):
    wide = np.random.default_rng(0).integers(0, 255, (40, 100, 3), np.uint8)
    prediction = detector(wide)
    assert prediction.size == (40, 100) and prediction.image.shape == (64, 64, 3)
    assert prediction.full_map().shape == (40, 100) and prediction.full_map().dtype == np.float32
    assert prediction.full_map().max() == pytest.approx(prediction.score, rel=0.1)


def test_threshold_is_the_runs_or_the_users(run, files, detector):
    own = read_run(run).threshold
    prediction = detector(files[0])
    assert prediction.verdict == ("anomalous" if prediction.score >= own.image else "normal")
    assert prediction.anomalous == (prediction.score >= own.image)
    higher = load_run(run, device="cpu", threshold=prediction.score + 0.1)(files[0])
    lower = load_run(run, device="cpu", threshold=prediction.score - 0.1)(files[0])
    assert (higher.verdict, lower.verdict) == ("normal", "anomalous")
    assert higher.normalised < 0.5 < lower.normalised
    assert lower.threshold.kind == "given" and lower.threshold.false_positive_rate is None


def test_run_without_threshold_has_a_verdict_only_with_a_given_one(run_copy, files):
    rewrite(run_copy, threshold=None)
    prediction = load_run(run_copy)(files[0])
    assert prediction.verdict is prediction.anomalous is prediction.normalised is None
    assert load_run(run_copy, threshold=0.0)(files[0]).verdict == "anomalous"


def test_checkpoint_alone_has_its_threshold(run, files, detector, tmp_path):
    shutil.copy(run / "checkpoints/last.ckpt", tmp_path)
    alone = load_run(tmp_path / "last.ckpt")
    assert alone(files[0]).score == detector(files[0]).score
    assert alone.threshold == detector.threshold


def test_bf16_scores_are_close_but_not_equal(run, files, detector):
    half = load_run(run, precision="bf16-mixed")
    assert half(files[0]).score == pytest.approx(detector(files[0]).score, rel=0.1)
    assert half(files[0]).score != detector(files[0]).score


def test_short_names_of_precisions_are_lightnings(run_copy, files):
    half = load_run(run_copy, precision="bf16-mixed")(files[0]).score
    detector = load_run(run_copy, precision="bf16")
    assert detector.facts["precision"] == "bf16-mixed"
    assert detector(files[0]).score == half
    assert load_run(run_copy, precision="32").facts["precision"] == "32-true"


def test_unknown_precisions_are_refused(run):
    for name in ("bf61", "transformer-engine", "8"):
        with pytest.raises(UserError, match=f"^precision {name}: .*bf16-mixed"):
            load_run(run, precision=name)


def test_damaged_checkpoint(run_copy):
    path = run_copy / "checkpoints/last.ckpt"
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"PK" + whole[2:500]):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"last\.ckpt: damaged"):
            load_run(run_copy)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(UserError, match=r"last\.ckpt: .*SHA-256"):
        load_run(run_copy)


def test_checkpoint_of_another_run(run_copy, make_run):
    other = make_run("seed=1", "trainer.max_epochs=1")
    shutil.copy(other / "checkpoints/last.ckpt", run_copy / "checkpoints")
    with pytest.raises(UserError, match=r"last\.ckpt: .*result\.json"):
        load_run(run_copy)


def rewrite(run, **changes):
    """Change contents of the run's checkpoint, and delete the record that has its hash."""
    path = run / "checkpoints/last.ckpt"
    kept = torch.load(path, weights_only=True)
    torch.save({**kept, **changes}, path)
    (run / "result.json").unlink()
    return kept


def test_checkpoint_that_does_not_fit_its_config(run_copy):
    kept = torch.load(run_copy / "checkpoints/last.ckpt", weights_only=True)
    state = dict(list(kept["state_dict"].items())[1:])
    rewrite(run_copy, state_dict=state)
    with pytest.raises(UserError, match=r"last\.ckpt: does not fit"):
        load_run(run_copy)


def test_a_torch_file_that_is_not_a_checkpoint(run_copy):
    path = run_copy / "checkpoints/last.ckpt"
    (run_copy / "result.json").unlink()
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"config|loops"):
        load_run(run_copy)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="list"):
        load_run(run_copy)


def test_code_in_a_checkpoint_is_not_executed(run_copy, tmp_path):
    path = run_copy / "checkpoints/last.ckpt"
    config = torch.load(path, weights_only=True)["config"]
    trace = tmp_path / "trace"
    config["model"]["scoring"] = {"_target_": "os.mkdir", "path": str(trace)}
    rewrite(run_copy, config=config)
    with pytest.raises(UserError, match=r"model\.scoring\._target_=os\.mkdir"):
        load_run(run_copy)
    assert not trace.exists()


def test_nested_targets_are_found():
    config = {"a": [{"_target_": "x.Y"}, {"b": {"_target_": "evil.f"}}], "c": 1}
    expected = [("a.0", "x.Y"), ("a.1.b", "evil.f")]
    assert list(targets(config)) == expected


def test_wrong_paths_and_devices_are_refused(run, tmp_path):
    (tmp_path / "runs").mkdir()
    shutil.copytree(run, tmp_path / "runs/mine")
    for path, word in (
        (tmp_path / "nowhere", "no such run"),
        (tmp_path / "runs", str(tmp_path / "runs/mine")),
        (tmp_path, "checkpoints/last.ckpt"),
        (run / "result.json", "not a checkpoint"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(str(path))}: .*{word}"):
            load_run(path)
    with pytest.raises(UserError, match="device tpu2"):
        load_run(run, device="tpu2")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device cuda"):
            load_run(run, device="cuda")


def test_teacher_weights_can_be_another_file(run_copy, files, detector, tmp_path):
    path = run_copy / "checkpoints/last.ckpt"
    config = torch.load(path, weights_only=True)["config"]
    weights = config["model"]["teacher"]["weights"]
    config["model"]["teacher"]["weights"] = str(tmp_path / "gone.pth")
    rewrite(run_copy, config=config)
    with pytest.raises(UserError, match=r"gone\.pth, .*--teacher-weights"):
        load_run(run_copy)
    shutil.copy(weights, tmp_path / "here.pth")
    moved = load_run(run_copy, teacher_weights=tmp_path / "here.pth")
    assert moved(files[0]).score == detector(files[0]).score
    config["model"]["teacher"]["weights"] = "random"
    torch.save({**torch.load(path, weights_only=True), "config": config}, path)
    with pytest.raises(UserError, match="random"):
        load_run(run_copy)


def test_incomplete_run_is_logged(run_copy, caplog):
    (run_copy / "result.json").unlink()
    load_run(run_copy)
    assert "epoch 2" in caplog.text


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys, anomalib_rd; from anomalib_rd.inference import Detector, Prediction; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_facts_name_the_checkpoint(run, detector):
    recorded = read_record(run)["checkpoint"]["sha256"]
    assert detector.facts["checkpoint"]["sha256"] == recorded
    assert json.dumps(detector.facts)
