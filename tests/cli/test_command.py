"""The command as a user types it, in processes of its own."""

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from anomalib_rd.cli import COMMANDS, main

FAST = ["trainer=cpu", "trainer.max_epochs=1", "data.image_size=[64,64]", "data.num_workers=0"]
TINY = ["model.teacher.name=test_efficientnet.r160_in1k", "model.teacher.weights=random"]


@pytest.fixture
def command(forked, tmp_path, mvtec_root):
    """Run ``anomalib-rd`` in an empty folder; gives ``status, out, err``."""
    folder = tmp_path / "work"
    folder.mkdir()

    def start(*words, env=None):
        return forked(*words, cwd=folder, env={"MVTEC_ROOT": str(mvtec_root), **(env or {})})

    start.folder = folder
    return start


def test_help_version_and_unknown_command():
    def run(*words):
        command = [sys.executable, "-m", "anomalib_rd", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert set(COMMANDS) <= set(run("--help").stdout.split())
    assert run("--version").stdout.startswith("anomalib-rd ")
    wrong = run("trian")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "trian" in wrong.stderr


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_each_command_has_help_with_examples_and_refuses_unknown_options(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    examples = re.findall(rf"^  anomalib-rd {command} .+$", out, re.MULTILINE)
    assert len(examples) >= 2
    assert main([command, "--colour"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"anomalib-rd {command} --help" in error


def test_options_may_stand_between_positional_arguments(tmp_path, capsys):
    """argparse alone takes positional arguments only in one piece."""
    (tmp_path / "a").mkdir()
    assert main(["data", "check", "data=btad", "--json", f"data.root={tmp_path / 'a'}"]) == 2
    assert str(tmp_path / "a") in capsys.readouterr().err


def test_train_takes_hydras_own_flags(command):
    shown = command("train", "--cfg", "job", "model=rd4ad", "seed=7")
    assert shown.status == 0 and "seed: 7" in shown.out and "name: rd4ad" in shown.out
    assert "model/teacher" in command("train", "--help").out


def test_one_run_writes_a_record_and_prints_its_table(command, mvtec_root):
    """In a new process, as from a shell."""
    words = ["train", "data=mvtec", "data.category=cloth", "logger=csv", *FAST]
    done = subprocess.run(
        [sys.executable, "-m", "anomalib_rd", *words],
        cwd=command.folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MVTEC_ROOT": str(mvtec_root)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    (result,) = command.folder.glob("runs/*/*/result.json")
    record = json.loads(result.read_text())
    assert record["provenance"]["command"].startswith("python -m anomalib_rd train")
    assert "cloth" in done.stdout and "AUROC" in done.stdout
    assert "cloth" in (result.parent / "report.html").read_text()
    assert (result.parent / "gallery.zip").is_file()


@pytest.mark.slow
def test_the_bare_command_trains_on_the_embedded_data(command, tmp_path):
    """No data, no weights, no account: what a newcomer types first."""
    env = {"ANOMALIB_RD_CACHE": str(tmp_path / "cache")}
    done = command("train", "trainer.max_epochs=1", env=env)
    assert done.status == 0, done.err
    (result,) = command.folder.glob("runs/*/*/result.json")
    record = json.loads(result.read_text())
    assert (record["data"]["name"], record["data"]["category"]) == ("demo", "brick")
    assert record["data"]["group"] == "texture" and record["data"]["train_images"] == 48
    assert list(result.parent.glob("wandb/offline-run-*"))


def test_multirun_over_categories_models_and_a_failure(command, mvtec_copy):
    """Two categories x two models; one category has a broken image."""
    from small_data import make_mvtec

    make_mvtec(mvtec_copy, categories=("knot",))
    broken = mvtec_copy / "knot/train/good/001.png"
    broken.write_bytes(broken.read_bytes()[:200])
    done = command(
        *("train", "-m", "data=mvtec", f"data.root={mvtec_copy}", "data.category=all"),
        *("model=rd4ad,untrained", "sweep=s", "logger=none", *FAST, *TINY),
    )
    assert done.status == 1, done.err
    sweep = command.folder / "multirun/s"
    results = sorted(p.relative_to(sweep).parts[0] for p in sweep.rglob("result.json"))
    assert results == ["cloth", "cloth", "knot"]  # untrained knot never reads the training images
    (failure,) = sweep.rglob("failure.json")
    error = json.loads(failure.read_text())
    assert "001.png" in error["error"] and "Traceback" in error["traceback"]
    assert "cloth" in done.out and "failed" in done.out
    files = {p.name for p in sweep.iterdir()}
    assert files >= {"summary.csv", "table.md", "heatmaps.png", "report.html"}
    assert not list(sweep.glob("*/*/report.html"))  # one page for all runs
    Image.open(sweep / "heatmaps.png").verify()
    again = command("report", sweep)
    assert again.status == 0 and "cloth" in again.out


@pytest.mark.slow
def test_a_study_of_all_categories_of_another_setting(command):
    words = ("study=loss", "experiment=none", "model=fmg_rd", "data.category=all", *FAST, *TINY)
    words += ("data=mvtec", "sweep=a", "logger=none", "report.heatmaps=0")
    done = command("train", "-m", *words, "report.html=false")
    assert done.status == 0, done.err
    assert not list(command.folder.rglob("report.html"))
    folders = {p.parent.parent.name for p in command.folder.glob("multirun/a/*/*/result.json")}
    assert folders == {"cable", "cloth"}
    assert len(list(command.folder.rglob("result.json"))) == 6  # three losses


def test_download_prints_the_licence_and_requires_its_acceptance(command):
    done = command("data", "download", "--root", "new")
    assert done.status == 2 and "CC BY-NC-SA 4.0" in done.err
    assert done.err.splitlines()[-1].endswith("--accept-license")
    assert not (command.folder / "new").exists()


def test_debug_shows_the_traceback(command):
    done = command("train", "data=mvtec", "data.category=clth", "--debug", *FAST)
    assert done.status != 0 and "Traceback" in done.err


def test_a_data_sets_categories_are_listed(command):
    done = command("data", "list", "data=mvtec")
    assert done.status == 0 and "cloth" in done.out and "square (4)" in done.out


def test_tab_completion_of_commands_groups_and_choices(command):
    def complete(line):
        env = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        return command("-sc", "query=bash", env=env).out.split()

    assert complete("anomalib-rd tr") == ["train"]
    assert "model" in complete("anomalib-rd train mod")
    assert {"model=fmg_rd", "model=rd4ad"} <= set(complete("anomalib-rd train model="))


@pytest.mark.slow
def test_two_processes_evaluate_like_one(command):
    """DDP on two CPU processes: 7 test images, none repeated, none dropped."""
    words = ["train", "data=mvtec", "data.category=cloth", "logger=none", *FAST]
    words += ["model=untrained", "report.heatmaps=0"]
    one = command(*words, "hydra.run.dir=one")
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    two = command(*words[:5], *FAST[1:], *words[-2:], *ddp, "hydra.run.dir=two")
    assert one.status == two.status == 0, two.err
    a, b = (json.loads((command.folder / d / "result.json").read_text()) for d in ("one", "two"))
    for name, value in a["metrics"].items():
        assert b["metrics"][name] == pytest.approx(value, abs=1e-6)
    rows = [(command.folder / d / "scores.csv").read_text().splitlines() for d in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 8
