"""``anomalib-rd status``: the state of each run of a sweep."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from anomalib_rd.cli import main
from anomalib_rd.results.record import write_failure
from anomalib_rd.results.sweeps import RUNNING, add_jobs

sys.path.append(str(Path(__file__).parents[1] / "results"))
from fake_runs import fake_run


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "multirun/s"
    add_jobs(folder, "train -m", {name: [] for name in ("a/done", "a/live", "b/cut", "b/none")})
    fake_run(folder / "a/done")
    for name, pid in (("a/live", os.getpid()), ("b/cut", None)):
        running = {"pid": pid, "created": psutil.Process().create_time(), "epochs": 4, "epoch": 2}
        running |= {"host": socket.gethostname(), "first_epoch": 0, "started": time.time() - 100}
        (folder / name).mkdir(parents=True)
        (folder / name / RUNNING).write_text(json.dumps(running))
    return folder


def test_it_prints_a_line_per_run_then_the_totals_and_the_time_left(sweep, capsys):
    assert main(["status", str(sweep)]) == 0
    heading, *lines, totals = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "state"]
    assert [line.split()[0] for line in lines] == ["a/done", "a/live", "b/cut", "b/none"]
    assert "done" in lines[0] and "in 12 s" in lines[0]
    assert "running" in lines[1] and "epoch 2 of 4, since 20" in lines[1]
    assert f"on {socket.gethostname()}, process {os.getpid()}" in lines[1]
    assert "interrupted" in lines[2] and lines[2].rstrip().endswith("epoch 2 of 4")
    assert lines[3].split() == ["b/none", "missing"]
    # 12.5 s a run: half of one running, half of one cut off, one missing.
    assert totals == "4 runs: 1 done, 1 running, 1 interrupted, 1 missing; about 25 s left"


def test_a_failed_run_is_named_with_its_reason_and_the_exit_status_is_1(sweep, capsys):
    write_failure(sweep / "b/none", ValueError("no space left"))
    assert main(["status", str(sweep)]) == 1
    shown = capsys.readouterr().out
    assert "ValueError: no space left" in shown and "1 failed" in shown


def test_json_output(sweep, capsys):
    assert main(["status", str(sweep), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"] == {
        "done": 1,
        "partial": 0,
        "running": 1,
        "failed": 0,
        "interrupted": 1,
        "missing": 1,
    }
    assert found["seconds_left"] == pytest.approx(25)
    assert found["runs"][1]["run"] == "a/live" and found["runs"][1]["running"]["epoch"] == 2


def test_runs_are_named_by_their_overrides(tmp_path, capsys):
    folder = tmp_path / "multirun/s"
    jobs = {
        f"bottle/run-{number}-86716939": ["seed=0", "data.category=bottle", f"model/masking={name}"]
        for number, name in enumerate(("none", "random", "p[left]"))
    }
    add_jobs(folder, "train -m", jobs)
    done, failed, _ = jobs
    fake_run(folder / done)
    write_failure(folder / failed, ValueError("boom"))
    assert main(["status", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()[1:-1]
    words = [line.split()[0] for line in lines]
    assert words == ["model/masking=none", "model/masking=random", "model/masking=p[left]"]
    assert done not in lines[0] and lines[1].rstrip().endswith(failed)
    assert main(["status", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [run["run"] for run in found] == list(jobs)
    assert found[0]["name"] == "model/masking=none"


def test_a_complete_sweep_has_nothing_left_to_run(tmp_path, capsys):
    fake_run(tmp_path / "x")
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 run: 1 done; nothing left to run"


def test_a_missing_folder_is_a_user_error(tmp_path, capsys):
    assert main(["status", str(tmp_path / "none")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "none") in line


def test_torch_is_not_imported(sweep):
    code = "import sys; from anomalib_rd.cli import main; main(sys.argv[1:]); "
    code += "assert not {'torch', 'lightning', 'hydra'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "status", str(sweep)], capture_output=True)
    assert done.returncode == 0, done.stderr


DAMAGES = {"cut off": '{"schema_version": 1, "da', "empty": "", "a list": "[]", "no parts": "{}"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_record_is_named_and_stops_neither_status_nor_report(
    tmp_path, capfd, caplog, damage
):
    folder = tmp_path / "s"
    fake_run(folder / "fine")
    fake_run(folder / "bad", category="pill")
    (folder / "bad/result.json").write_text(DAMAGES[damage])
    assert main(["status", str(folder), "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    states = {run["run"]: run for run in found["runs"]}
    assert (states["fine"]["state"], states["bad"]["state"]) == ("done", "failed")
    assert "bad/result.json" in states["bad"]["reason"]

    assert main(["report", str(folder), "--html"]) == 1
    assert sum("bad/result.json" in record.message for record in caplog.records) == 1
    summary = (folder / "summary.csv").read_text()
    assert "/fine," in summary and "/bad," not in summary
    assert (folder / "report.html").is_file()

    (folder / "fine/result.json").unlink()
    assert main(["report", str(folder)]) == 2
