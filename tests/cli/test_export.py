"""``anomalib-rd export``: files that give torch's results in other runtimes and without torch."""

import contextlib
import io
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from anomalib_rd import load_exported, load_run
from anomalib_rd.cli import main
from anomalib_rd.errors import UserError
from anomalib_rd.inference import export as exporting
from anomalib_rd.inference.load import fold_batch_norms, read_run
from anomalib_rd.inference.runtimes import FORMATS, open_model
from anomalib_rd.results.record import read_record, read_scores

pytestmark = pytest.mark.own_process  # loads ONNX Runtime and OpenVINO

KINDS = list(FORMATS)
# Runs the command line where nothing can import torch, or what brings it.
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "torchmetrics", "lightning", "timm"}:
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Absent())
from anomalib_rd.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The run in a format, and the output of the command: ``exported(format)`` is (path, words)."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def export(kind):
        path, printed = folder / f"part{FORMATS[kind]}", io.StringIO()
        words = ["export", str(run), f"format={kind}", "--out", str(path), "--images", "5"]
        with contextlib.redirect_stdout(printed):
            assert main(words) == 0
        return path, printed.getvalue()

    return export


@pytest.fixture(scope="module")
def files(run, data_root):
    return [data_root / path for path in read_scores(run)["path"]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_gives_the_runs_results_for_any_batch_size(kind, exported, run, files):
    path, printed = exported(kind)
    assert f"as {kind}, float32" in printed and "5 test images" in printed
    expected = list(load_run(run, device="cpu").many(files))
    detector = load_exported(path, trust=True)
    for batch_size in (1, 4):
        found = list(detector.many(files, batch_size))
        assert [p.score for p in found] == pytest.approx([p.score for p in expected], abs=1e-4)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, atol=1e-4)
            assert one.anomaly_map.dtype == np.float32 and one.verdict == other.verdict
            assert one.normalised == pytest.approx(other.normalised, abs=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_metadata_name_the_training(kind, exported, run):
    path, _ = exported(kind)
    facts, record = open_model(kind, path).metadata, read_record(run)
    assert (facts.category, facts.image_size, facts.precision) == ("cloth", (64, 64), "float32")
    assert facts.threshold == read_run(run).threshold and facts.threshold is not None
    assert facts.normalisation["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert facts.normalisation["std"] == pytest.approx([0.229, 0.224, 0.225])
    training = facts.training
    assert training["checkpoint_sha256"] == record["checkpoint"]["sha256"]
    assert training["metrics"] == {
        k: None if np.isnan(v) else v for k, v in record["metrics"].items()
    }
    assert (training["seed"], training["epochs"]) == (0, 2)
    assert training["data_fingerprint"] == record["data"]["fingerprint"]


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_no_paths_of_this_machine_are_inside(kind, exported):
    content = exported(kind)[0].read_bytes()
    assert str(exporting.__file__).rpartition("anomalib_rd")[0].encode() not in content


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_predict_without_torch(kind, exported, run, files, tmp_path):
    path, _ = exported(kind)
    words = ["predict", path, files[0].parent, files[-1], "--out", tmp_path, "--maps", "npy"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "predictions.csv").set_index("path")["score"]
    detector = load_run(run, device="cpu")
    assert len(found) == 4
    assert list(found) == pytest.approx([detector(p).score for p in found.index], abs=1e-4)
    facts = json.loads((tmp_path / "predictions.json").read_text())
    assert facts["exported"]["format"] == kind and facts["threshold"]["kind"] == "quantile"


def test_plain_onnx_runtime_of_the_readme_gives_the_same(exported, files, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(import numpy.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part.onnx").write_bytes(exported("onnx")[0].read_bytes())
    (tmp_path / "part.png").write_bytes(files[-1].read_bytes())
    names = {}
    exec(code, names)
    expected = load_exported("part.onnx")("part.png")
    np.testing.assert_allclose(names["heatmap"][0], expected.anomaly_map, atol=1e-6)
    assert names["score"] == pytest.approx([expected.score])


def test_a_file_that_differs_is_not_written(run_copy, monkeypatch, capsys):
    def spoil(networks):
        with torch.no_grad():
            next(networks.student.parameters()).mul_(1.1)
        return fold_batch_norms(networks)

    monkeypatch.setattr(exporting, "fold_batch_norms", spoil)
    # Where the file lies by default.
    path = run_copy / "exports" / f"{read_record(run_copy)['name']}.pt2"
    path.parent.mkdir()
    path.write_bytes(b"an older one")
    assert main(["export", f"run={run_copy}", "format=torch"]) == 2
    printed = capsys.readouterr().err
    assert str(path) in printed and "7 images" in printed
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == b"an older one"


@pytest.mark.slow
def test_tiles_masks_and_standardised_scores_go_with_the_file(make_run, data_root, tmp_path):
    run = make_run(
        "trainer.max_epochs=1",
        "model.masking.inference=complementary",
        "model.tiling.size=[64,64]",
        "data.image_size=[96,64]",
        "model/scoring=standardised",
    )
    path = tmp_path / "part.pt2"
    assert main(["export", str(run), "format=torch", "--out", str(path)]) == 0
    files = [data_root / name for name in read_scores(run)["path"]]
    expected = [p.score for p in load_run(run, device="cpu").many(files)]
    found = [p.score for p in load_exported(path, trust=True).many(files, 3)]
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_int8_reports_the_change_of_the_metrics(run, files, tmp_path, capsys):
    path = tmp_path / "part.xml"
    words = ["export", str(run), "format=openvino", "--int8", "--out", str(path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "as openvino, int8" in printed and "12 normal training images" in printed
    facts = open_model("openvino", path).metadata
    assert facts.precision == "int8"
    float32, int8 = facts.int8["metrics"]["image_auroc"]
    detector = load_exported(path)
    scores = np.array([detector(file).score for file in files])
    labels = read_scores(run)["label"].to_numpy()
    normal, defect = scores[labels == 0], scores[labels == 1]
    auroc = np.mean([(d > n) + 0.5 * (d == n) for d in defect for n in normal])
    assert int8 == pytest.approx(auroc)
    assert float32 == pytest.approx(read_record(run)["metrics"]["image_auroc"])
    assert path.with_suffix(".bin").stat().st_size < 0.4 * len(read_run(run).path.read_bytes())


def test_damaged_and_foreign_files_are_user_errors(exported, tmp_path):
    import onnx

    content = exported("onnx")[0].read_bytes()
    path = tmp_path / "part.onnx"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"part\.onnx: damaged"):
        load_exported(path)
    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, {})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"part\.onnx: not exported by anomalib-rd"):
        load_exported(path)
    onnx.helper.set_model_props(model, {"anomalib_rd": '{"format_version": 99}'})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"part\.onnx: .*99.* 1;"):
        load_exported(path)
    onnx.helper.set_model_props(model, {"anomalib_rd": '{"format_version": 1}'})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"part\.onnx: "):
        load_exported(path)


def test_weights_of_openvino_must_be_the_files_own(exported, tmp_path):
    path = tmp_path / "part.xml"
    path.write_bytes(exported("openvino")[0].read_bytes())
    with pytest.raises(UserError, match=r"part\.xml: .*part\.bin"):
        load_exported(path)
    weights = bytearray(exported("openvino")[0].with_suffix(".bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    path.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(UserError, match=r"part\.bin: "):
        load_exported(path)
    with pytest.raises(UserError, match=r"part\.bin: .*part\.xml"):
        load_exported(path.with_suffix(".bin"))


def test_unsupported_options_are_user_errors(tmp_path):
    paths = {kind: tmp_path / f"part{suffix}" for kind, suffix in FORMATS.items()}
    for path in (*paths.values(), tmp_path / "part.bin"):
        path.touch()  # refused before any is read
    for make, why in (
        (lambda: load_exported(paths["torch"]), "--trust"),
        (lambda: load_exported(paths["onnx"], precision="bf16-true"), "bf16-true.*32-true"),
        (lambda: load_exported(paths["onnx"], device="tpu"), "device tpu: "),
        (lambda: load_exported(paths["openvino"], device="cuda"), "device cuda: "),
        (lambda: load_exported(tmp_path / "none.onnx"), "none.onnx: "),
    ):
        with pytest.raises(UserError, match=why):
            make()


def test_openvino_in_bf16_is_near_and_asked_for(exported, files):
    path, _ = exported("openvino")
    full, half = (
        load_exported(path)(files[0]),
        load_exported(path, precision="bf16-true")(files[0]),
    )
    assert half.score == pytest.approx(full.score, rel=0.1)


def test_openvino_on_a_cpu_without_bf16_is_a_user_error(exported, monkeypatch):
    openvino = pytest.importorskip("openvino")
    path, compile_model = exported("openvino")[0], openvino.Core.compile_model

    def without_bf16(self, model, device, settings):
        return compile_model(self, model, device, settings | {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino.Core, "compile_model", without_bf16)
    with pytest.raises(UserError, match=r"bf16-true: .* f32 on this CPU"):
        load_exported(path, precision="bf16-true")
    assert load_exported(path).facts["precision"] == "32-true"


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_onnx_runtime_that_falls_back_to_the_cpu_is_reported(exported, files, monkeypatch):
    """It has CUDA, and something that CUDA needs is not there: ONNX Runtime takes the CPU."""
    onnxruntime = pytest.importorskip("onnxruntime")
    path, _ = exported("onnx")
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    detector = load_exported(path)
    assert detector.facts["device"] == "cpu" and detector(files[0]).score > 0
    assert load_exported(path, device="cpu").facts["device"] == "cpu"
    for device in ("cuda", "cuda:1"):
        with pytest.raises(UserError, match=f"^device {device}: .*{path.name}"):
            load_exported(path, device=device)


def test_onnx_runtime_on_cuda_reports_the_device(exported, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    path, _ = exported("onnx")
    cuda = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])
    plain = onnxruntime.InferenceSession

    def session(path, settings, providers):
        made = plain(path, settings, providers=["CPUExecutionProvider"])
        (name, options), _ = providers
        monkeypatch.setattr(made, "get_providers", lambda: [name, "CPUExecutionProvider"])
        monkeypatch.setattr(made, "get_provider_options", lambda: {name: options})
        return made

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    assert load_exported(path, device="auto").facts["device"] == "cuda:0"
    assert load_exported(path, device="cuda:1").facts["device"] == "cuda:1"


def test_a_threshold_of_ones_own(exported, files):
    path, _ = exported("onnx")
    score = load_exported(path)(files[0]).score
    verdicts = [load_exported(path, threshold=score + d)(files[0]).verdict for d in (-0.1, 0.1)]
    assert verdicts == ["anomalous", "normal"]


def test_another_false_positive_rate(exported, run):
    path, _ = exported("onnx")
    detector = load_exported(path, false_positive_rate=0.25)
    assert detector.threshold == load_run(run, device="cpu", false_positive_rate=0.25).threshold
    with pytest.raises(UserError, match=r"rate 0\.01: .*99 .*12"):
        load_exported(path, false_positive_rate=0.01)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["format=tflite"], "format=tflite"),
        (["format=onnx", "--int8"], "--int8"),
        (["format=onnx", "--out", "part.xml"], "format=onnx"),
        (["--images", "0"], "--images"),
        (["seed=1"], "seed=1"),
        (["report.heatmaps=3"], "report.heatmaps=3"),
        (["data.image_size=[96,96]"], "data.image_size"),
        (["data.root=/nowhere"], "/nowhere"),
    ],
)
def test_user_errors_are_one_line(words, part, run, capsys):
    assert main(["export", str(run), *words]) == 2
    printed = capsys.readouterr().err
    assert part in printed and printed.count("\n") == 1
