"""The command as a user types it: real processes."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

FAST = ["trainer=cpu", "trainer.max_epochs=1", "data.image_size=[64,64]", "data.num_workers=0"]


@pytest.fixture
def command(tmp_path, mvtec_root):
    """Run ``anomalib-rd`` in an empty folder with one thread; gives the finished process."""
    place = tmp_path / "work"
    place.mkdir()

    def start(*words, env=None, cwd=place):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            "MVTEC_ROOT": str(mvtec_root),
            **(env or {}),
        }
        return subprocess.run(
            [sys.executable, "-m", "anomalib_rd", *map(str, words)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
        )

    start.place = place
    return start


def test_help_version_and_unknown_verb(command):
    assert "train" in command("--help").stdout
    assert command("--version").stdout.startswith("anomalib-rd ")
    wrong = command("trian")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1


def test_train_takes_hydras_own_flags(command):
    shown = command("train", "--cfg", "job", "model=rd4ad", "seed=7")
    assert shown.returncode == 0 and "seed: 7" in shown.stdout and "name: rd4ad" in shown.stdout
    assert "model/teacher" in command("train", "--help").stdout


def test_one_run_leaves_a_record_and_prints_its_table(command):
    done = command("train", "data=mvtec", "data.category=cloth", "logger=csv", *FAST)
    assert done.returncode == 0, done.stderr
    (result,) = command.place.glob("runs/*/*/result.json")
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
    assert done.returncode == 0, done.stderr
    (result,) = command.place.glob("runs/*/*/result.json")
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
        *("model=rd4ad,untrained", "sweep=s", "logger=none", *FAST),
    )
    assert done.returncode == 1, done.stderr
    sweep = command.place / "multirun/s"
    results = sorted(p.relative_to(sweep).parts[0] for p in sweep.rglob("result.json"))
    assert results == ["cloth", "cloth", "knot"]  # untrained knot never reads the training images
    (failure,) = sweep.rglob("failure.json")
    error = json.loads(failure.read_text())
    assert "001.png" in error["error"] and "Traceback" in error["traceback"]
    assert "cloth" in done.stdout and "failed" in done.stdout
    left = {p.name for p in sweep.iterdir()}
    assert left >= {"summary.csv", "table.md", "heatmaps.png", "report.html"}
    assert not list(sweep.glob("*/*/report.html"))  # one page for all runs
    Image.open(sweep / "heatmaps.png").verify()
    again = command("report", sweep)
    assert again.returncode == 0 and "cloth" in again.stdout


def test_a_study_of_all_categories_of_another_setting(command):
    words = ("study=loss", "experiment=none", "model=fmg_rd", "data.category=all", *FAST)
    words += ("data=mvtec", "sweep=a", "logger=none", "report.heatmaps=0")
    done = command("train", "-m", *words, "report.html=false")
    assert done.returncode == 0, done.stderr
    assert not list(command.place.rglob("report.html"))
    folders = {p.parent.parent.name for p in command.place.glob("multirun/a/*/*/result.json")}
    assert folders == {"cable", "cloth"}
    assert len(list(command.place.rglob("result.json"))) == 6  # three losses


def test_download_shows_the_licence_and_wants_it_accepted(command):
    done = command("data", "download", "--root", "new")
    assert done.returncode == 2 and "CC BY-NC-SA 4.0" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("--accept-license")
    assert not (command.place / "new").exists()


def test_debug_shows_the_traceback(command):
    done = command("train", "data=mvtec", "data.category=clth", "--debug", *FAST)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_a_data_sets_categories_are_listed(command):
    done = command("data", "list", "data=mvtec")
    assert done.returncode == 0 and "cloth" in done.stdout and "square (4)" in done.stdout


def test_tab_completion_knows_verbs_groups_and_choices(command):
    def complete(line):
        env = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        return command("-sc", "query=bash", env=env).stdout.split()

    assert complete("anomalib-rd tr") == ["train"]
    assert "model" in complete("anomalib-rd train mod")
    assert {"model=fmg_rd", "model=rd4ad"} <= set(complete("anomalib-rd train model="))


@pytest.mark.slow
def test_two_processes_judge_as_one(command):
    """DDP on two CPU processes: 7 test images, none repeated, none dropped."""
    words = ["train", "data=mvtec", "data.category=cloth", "logger=none", *FAST]
    words += ["model=untrained", "report.heatmaps=0"]
    one = command(*words, "hydra.run.dir=one")
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    two = command(*words[:5], *FAST[1:], *words[-2:], *ddp, "hydra.run.dir=two")
    assert one.returncode == two.returncode == 0, two.stderr
    a, b = (json.loads((command.place / d / "result.json").read_text()) for d in ("one", "two"))
    for name, value in a["metrics"].items():
        assert b["metrics"][name] == pytest.approx(value, abs=1e-6)
    rows = [(command.place / d / "scores.csv").read_text().splitlines() for d in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 8
