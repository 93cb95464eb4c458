"""When and how a sweep's summary run is logged: at the end, again, by hand, not at all."""

import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import fake_run
from made_sweep import RD4AD, WANDB, make_sweep
from omegaconf import OmegaConf
from wandb_file import read_runs

from anomalib_rd.cli import main
from anomalib_rd.cli.sweep import SweepCallback
from anomalib_rd.reports.report import report
from anomalib_rd.tracking.sweep_summary import log_sweep
from anomalib_rd.tracking.wandb_runs import WANDB_ID, get_run_id, start_run


def test_update_uses_the_same_run(tmp_path):
    folder = make_sweep(tmp_path / "s", seeds=(0,))
    log_sweep(report([folder]), folder)
    log_sweep(report([folder]), folder)
    (first,) = read_runs(folder)
    fake_run(folder / "late", "carpet", 7, config=RD4AD | {"logger": WANDB})
    log_sweep(report([folder]), folder)
    _, second = read_runs(folder)
    assert first.id == second.id and second.summary["runs/done"] == 5


def end_multirun(folder):
    config = OmegaConf.create({"report": {"html": False}, "hydra": {"sweep": {"dir": str(folder)}}})
    with pytest.raises(SystemExit) as end:
        SweepCallback().on_multirun_end(config)
    return end.value.code


def test_end_of_a_multirun_logs_the_summary(tmp_path, capsys):
    folder = make_sweep(tmp_path / "s", seeds=(0,))
    assert end_multirun(folder) == 1
    assert "1 of 5 runs failed" in capsys.readouterr().err
    (run,) = read_runs(folder)
    assert (run.summary["runs/done"], run.summary["runs/failed"], run.exit_code) == (4, 1, 0)


def test_wandb_error_does_not_change_the_multirun(tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise OSError("no service")

    monkeypatch.setattr("anomalib_rd.tracking.sweep_summary.start_run", broken)
    folder = make_sweep(tmp_path / "s", seeds=(0,))
    assert end_multirun(folder) == 1 and (folder / "table.md").is_file()
    ours = [record for record in caplog.records if record.name.startswith("anomalib_rd")]
    assert [record.getMessage() for record in ours] == [
        "W&B: the summary of the sweep was not logged (no service)"
    ]
    (folder / "cable/failed/failure.json").unlink()
    SweepCallback().on_multirun_end(
        OmegaConf.create({"report": {"html": False}, "hydra": {"sweep": {"dir": str(folder)}}})
    )


@pytest.mark.parametrize("why", ["no W&B", "disabled", "an agent of a W&B sweep"])
def test_nothing_is_logged(tmp_path, monkeypatch, why):
    logger = {} if why == "no W&B" else WANDB
    if why == "disabled":
        logger = {"wandb": WANDB["wandb"] | {"mode": None}}
        monkeypatch.setenv("WANDB_MODE", "disabled")
    if why.startswith("an agent"):
        monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setattr("anomalib_rd.tracking.sweep_summary.start_run", pytest.fail)
    fake_run(tmp_path / "s/a", "carpet", config=RD4AD | {"logger": logger})
    log_sweep(report([tmp_path / "s"]), tmp_path / "s")
    assert not (tmp_path / "s" / WANDB_ID).exists()


def test_error_of_wandb_is_one_warning(tmp_path, monkeypatch, caplog):
    import wandb

    fake_run(tmp_path / "s/a", "carpet", config=RD4AD | {"logger": WANDB})

    def broken(*_, **__):
        raise wandb.Error("no such thing\nand more")

    monkeypatch.setattr(wandb, "Table", broken)
    log_sweep(report([tmp_path / "s"]), tmp_path / "s")
    (record,) = [record for record in caplog.records if record.name.startswith("anomalib_rd")]
    assert "no such thing" in record.getMessage()
    assert wandb.run is None
    (run,) = read_runs(tmp_path / "s")
    assert run.exit_code == 1
    monkeypatch.undo()
    log_sweep(report([tmp_path / "s"]), tmp_path / "s")  # is made up for
    assert [run.exit_code for run in read_runs(tmp_path / "s")] == [1, 0]


def test_summary_run_on_a_server(tmp_path, stub, monkeypatch, capsys):
    online = {"wandb": WANDB["wandb"] | {"mode": None}}
    fake_run(tmp_path / "s/a", "carpet", config=RD4AD | {"logger": online})
    monkeypatch.setattr("anomalib_rd.tracking.sweep_summary._media", lambda *_: {"a": 1})
    assert main(["report", str(tmp_path / "s"), "--wandb"]) == 0
    assert f"W&B: summary run in {stub.url}" in capsys.readouterr().out
    sent = [body for name, body in stub.bodies if name == "UpsertBucket"]
    assert sent[0]["variables"]["project"] == "theirs"
    assert sent[0]["variables"]["name"] == (tmp_path / "s" / WANDB_ID).read_text().strip()


def test_report_into_another_project(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "s"
    fake_run(folder / "a", "carpet", config=RD4AD)
    assert main(["report", str(folder), "--wandb"]) == 2
    assert "--project" in capsys.readouterr().err
    assert main(["report", str(folder), "--wandb", "--project", "mine"]) == 0
    (run,) = read_runs(folder)
    assert (run.project, run.group) == ("mine", "s")
    assert f"W&B: summary run in {run.folder}" in capsys.readouterr().out


def test_report_refuses_a_single_run(tmp_path, capsys):
    fake_run(tmp_path / "run", "carpet", config=RD4AD | {"logger": WANDB})
    assert main(["report", str(tmp_path / "run"), "--wandb"]) == 2
    assert "give a sweep's folder" in capsys.readouterr().err


def test_report_refuses_wrong_arguments(capsys):
    for words in (["a", "b", "--wandb"], ["a", "--project", "p"]):
        assert main(["report", *words]) == 2
        assert capsys.readouterr().err.startswith("anomalib-rd: report: --")


LIGHT = """
import sys
from pathlib import Path
from anomalib_rd.reports.report import report
from anomalib_rd.tracking.sweep_summary import log_sweep
folder = Path(sys.argv[1])
log_sweep(report([folder]), folder)
print("loaded:", {"torch", "lightning"} & set(sys.modules))
"""


def test_neither_torch_nor_lightning_is_imported(tmp_path):
    fake_run(tmp_path / "s/a", "carpet", config=RD4AD | {"logger": WANDB})
    words = [sys.executable, "-c", LIGHT, str(tmp_path / "s")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loaded: set()" in done.stdout and len(read_runs(tmp_path / "s")) == 1


def test_new_run_gets_another_id(tmp_path):
    first = get_run_id(tmp_path / "run", resume=True)
    assert get_run_id(tmp_path / "run", resume=True) == first
    assert get_run_id(tmp_path / "run", resume=False) != first


def test_folder_of_wandb_files_is_created(tmp_path):
    run = start_run({"dir": str(tmp_path / "new"), "mode": "offline"})
    run.finish()
    assert Path(run.dir).is_relative_to(tmp_path / "new")
