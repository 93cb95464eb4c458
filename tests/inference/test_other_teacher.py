"""A run judges with the teacher that it was trained with, or says that it is another one."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from trained_runs import SMALL

from anomalib_rd import load_run
from anomalib_rd.cli import main
from anomalib_rd.errors import UserError
from anomalib_rd.inference.export import load_model
from anomalib_rd.inference.load import read_run
from anomalib_rd.networks import Teacher
from anomalib_rd.networks.teacher import state_sha256
from anomalib_rd.results import identity

NAME = "test_efficientnet.r160_in1k"
TINY = [f"model.teacher.name={NAME}", "model.student.design=generic", "trainer.max_epochs=1"]
TINY += [
    "callbacks=default",
    "~callbacks.progress",
    "report.heatmaps=0",
    "report.gallery=0",
    "report.html=false",
]


def weights(path, change=0.0):
    """The weights of a tiny teacher in a file."""
    torch.manual_seed(0)
    state = Teacher(NAME, "random").net.state_dict()
    torch.save({k: v + change if v.is_floating_point() else v for k, v in state.items()}, path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with the teacher's weights of the runs below as ``t.pth``."""
    monkeypatch.chdir(tmp_path)
    weights(tmp_path / "t.pth")
    return tmp_path


@pytest.fixture
def train(folder, data_root):
    """``anomalib-rd train`` with these weights in the folder ``r``; returns the exit status."""

    def start(*overrides):
        own = ["model.teacher.weights=t.pth", f"data.root={data_root}", *SMALL, *TINY]
        return main(["train", *own, "hydra.run.dir=r", *overrides])

    return start


def hashes(capsys):
    """The shortened hashes in the last line of the errors."""
    return re.findall(r"\b[0-9a-f]{12}\b", capsys.readouterr().err.splitlines()[-1])


def test_the_hash_depends_on_names_shapes_and_values_only(tmp_path):
    path = weights(tmp_path / "t.pth")
    whole = Teacher(NAME, str(path))
    known = state_sha256(whole)
    whole.to(memory_format=torch.channels_last)
    assert state_sha256(whole) == known == state_sha256(Teacher(NAME, str(path)))
    state = torch.load(path, weights_only=True)
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "less.pth")
    assert state_sha256(Teacher(NAME, str(tmp_path / "less.pth"))) == known
    name, value = next((k, v) for k, v in kept.items() if v.dim() == 4)
    moved = value.flatten().roll(1).reshape(value.shape)  # the same values, other positions
    torch.save({**kept, name: moved}, tmp_path / "other.pth")
    assert state_sha256(Teacher(NAME, str(tmp_path / "other.pth"))) != known


def test_a_changed_file_is_refused_unless_other_teacher_is_given(train, folder, data_root, capsys):
    assert train() == 0
    record = json.loads((folder / "r/result.json").read_text())
    kept = torch.load(folder / "r/checkpoints/last.ckpt", weights_only=True)
    known = state_sha256(Teacher(NAME, "t.pth"))
    assert record["model"]["teacher_sha256"] == kept["teacher_sha256"] == known
    image = data_root / "cloth/test/good/000.png"
    score = load_run("r", device="cpu")(image).score
    shutil.copy("t.pth", "elsewhere.pth")
    weights(folder / "t.pth", change=0.01)
    other = state_sha256(Teacher(NAME, "t.pth"))
    for command in (
        ["predict", "r", str(image), "--no-heatmaps", "--out", "p"],
        ["predict", "r", str(image), "--no-heatmaps", "--out", "p", "--trust"],
        ["evaluate", "r", "--device", "cpu", "--trust"],
        ["export", "r", "--trust"],
        ["train", "--from", "r", "--trust", "hydra.run.dir=again"],
    ):
        assert main(command) == 2, command
        assert hashes(capsys) == [known[:12], other[:12]], command
    found = load_run("r", device="cpu", teacher_weights="elsewhere.pth")
    assert found(image).score == score and found.facts["teacher_sha256"] == known
    found = load_run("r", device="cpu", other_teacher=True)
    assert found(image).score != score and found.facts["teacher_sha256"] == other
    evaluate = ["evaluate", "r", "--device", "cpu", "--name", "n", "--other-teacher"]
    assert main(evaluate) == 0
    made = json.loads((folder / "r/evaluations/n/evaluation.json").read_text())
    assert made["model"]["teacher_sha256"] == other
    model = load_model(read_run("r"), other_teacher=True).metadata
    assert model.model["teacher_sha256"] == other and model.training["teacher_sha256"] == known
    assert main(["train", "--from", "r", "--other-teacher", "hydra.run.dir=again"]) == 0


def test_a_run_is_neither_resumed_nor_skipped_with_another_teacher(train, folder, capsys):
    assert train() == 0
    shutil.copy("t.pth", "kept.pth")
    weights(folder / "t.pth", change=0.01)
    assert train() == 2 and len(hashes(capsys)) == 2
    (folder / "r/result.json").rename(folder / "result.json")
    assert train() == 2 and len(hashes(capsys)) == 2
    (folder / "result.json").rename(folder / "r/result.json")
    # Another file with the same weights is the same teacher.
    torch.save({"state_dict": torch.load("kept.pth", weights_only=True)}, folder / "t.pth")
    before = (folder / "r/result.json").stat().st_mtime_ns
    assert train() == 0
    assert (folder / "r/result.json").stat().st_mtime_ns == before


def test_a_checkpoint_without_a_hash_is_loaded_with_a_warning(train, folder, monkeypatch):
    assert train() == 0
    path = folder / "r/checkpoints/last.ckpt"
    kept = torch.load(path, weights_only=True)
    del kept["teacher_sha256"]
    torch.save(kept, path)
    (folder / "r/result.json").unlink()
    said = []
    monkeypatch.setattr(identity.log, "warning", lambda *words: said.append(words[1]))
    load_run("r", device="cpu")
    assert said == [Path("r/checkpoints/last.ckpt")]
    torch.save({**kept, "teacher_sha256": "0" * 64}, path)
    with pytest.raises(UserError, match="000000000000"):
        load_run("r", device="cpu")
