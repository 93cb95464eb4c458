import importlib
import logging
import os
import pty
import sys
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader
from wandb_file import read_runs

import anomalib_rd
from anomalib_rd.errors import UserError
from anomalib_rd.tracking.wandb_logger import close_runs, finish


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def test_step(self, batch, _):
        self.log("test/image_auroc", torch.tensor(0.5))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def trained(make_logger, save_dir):
    torch.manual_seed(0)
    logger = make_logger()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    data = DataLoader(torch.ones(4, 1), batch_size=2)
    with close_runs(trainer.loggers):
        logger.log_hyperparams({"seed": 3, "model": {"name": "rd4ad"}})
        module = Line()
        trainer.fit(module, data)
        trainer.test(module, data, verbose=False)
    (run,) = read_runs(save_dir)
    return run


def test_trained_run(trained):
    assert (trained.project, trained.group, trained.job_type) == (
        "anomalib-rd",
        "components",
        "fmg_rd",
    )
    assert trained.name == "bottle-fmg_rd-s0"
    assert trained.tags == ["bottle", "object", "resnet18", "seed0"]
    assert trained.config["seed"] == 3 and trained.config["model"] == {"name": "rd4ad"}
    assert trained.exit_code == 0
    (row,) = [row for row in trained.history if "train/loss" in row]
    assert row["epoch"] == 0 and row["train/loss"] > 0
    assert trained.summary["train/loss"] == row["train/loss"]
    assert trained.summary["test/image_auroc"] == 0.5  # a number, not {"last": number}


def test_curves_are_over_epochs(trained):
    assert {"epoch", "trainer/global_step"} <= set(trained.metrics)
    assert trained.metrics["train/*"].step_metric == "epoch"
    assert trained.metrics["test_curve/*"].step_metric == "epoch"
    assert trained.metrics["lr-*"].step_metric == "trainer/global_step"


def test_console_is_not_captured(trained):
    assert not (trained.files / "output.log").exists()


def test_creating_a_logger_starts_nothing(make_logger, save_dir):
    import wandb

    finish(make_logger(), failed=False)
    assert wandb.run is None and not save_dir.exists()


def test_two_runs_in_one_process(make_logger, save_dir):
    for seed in (0, 1):
        logger = make_logger(name=f"s{seed}")
        with close_runs([logger]):
            logger.log_hyperparams({"seed": seed})
            logger.log_metrics({f"train/loss{seed}": 1.0}, step=0)
    first, second = read_runs(save_dir)
    assert first.id != second.id
    assert [run.name for run in (first, second)] == ["s0", "s1"]
    assert [run.config["seed"] for run in (first, second)] == [0, 1]
    assert "train/loss1" not in first.summary and "train/loss0" not in second.summary


def test_open_run_is_closed_as_failed(make_logger, save_dir, caplog):
    make_logger(name="open").experiment.log({"a": 1})
    logger = make_logger(name="next")
    with close_runs([logger]):
        logger.log_metrics({"b": 1.0})
    first, second = read_runs(save_dir)
    assert (first.name, first.exit_code) == ("open", 1)
    assert (second.name, second.exit_code) == ("next", 0) and "a" not in second.summary
    assert "'open'" in caplog.text


def test_no_login_goes_offline_in_one_line(make_logger, save_dir, caplog):
    logger = make_logger(mode=None)
    with caplog.at_level(logging.INFO, "anomalib_rd"):
        _ = logger.experiment
    finish(logger, failed=False)
    (run,) = read_runs(save_dir)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("anomalib_rd")]
    assert len(ours) == 1 and "\n" not in ours[0]
    assert "`wandb sync runs/bottle/wandb/offline-run-" in ours[0]
    assert ours[0].count(run.folder.name) == 1


def test_explicit_online_without_login_goes_offline(make_logger, save_dir, caplog):
    logger = make_logger(mode="online")
    with close_runs([logger]):
        logger.log_metrics({"a": 1.0})
    assert len(read_runs(save_dir)) == 1 and "no login found" in caplog.text


@contextmanager
def terminal(monkeypatch):
    """A real terminal as stdin, stdout and stderr; gives the end that a person would hold."""
    leader, follower = pty.openpty()
    with (
        os.fdopen(follower) as keyboard,
        os.fdopen(os.dup(follower), "w", buffering=1) as screen,
        monkeypatch.context() as patched,
    ):
        patched.setenv("TERM", "xterm")  # wandb never prompts on a "dumb" one
        patched.setattr(sys, "stdin", keyboard)
        patched.setattr(sys, "stdout", screen)
        patched.setattr(sys, "stderr", screen)
        yield leader
    os.close(leader)


def shown(leader):
    os.set_blocking(leader, False)
    try:
        return os.read(leader, 100_000).decode()
    except BlockingIOError:
        return ""


@pytest.mark.parametrize("lookup", ["right", "wrong"])
def test_no_prompt_without_login(make_logger, monkeypatch, caplog, lookup):
    if lookup == "wrong":  # a login that we see and wandb does not
        monkeypatch.setattr("anomalib_rd.tracking.wandb_runs.has_login", lambda _: True)
    with terminal(monkeypatch) as leader:
        os.write(leader, b"3\n")  # a prompt would take this answer instead of waiting for ever
        logger = make_logger(mode=None)
        offline = logger.experiment.offline
        finish(logger, failed=False)
        assert offline and shown(leader).strip() == "3"  # the echo, nothing else
    said = {"right": "no login found", "wrong": "cannot log online (No API key"}
    assert said[lookup] in caplog.text


def test_explicit_offline_logs_nothing(make_logger, caplog):
    _ = make_logger(mode="offline").experiment
    assert not [r for r in caplog.records if r.name.startswith("anomalib_rd")]


def test_wandb_mode_disabled_is_honoured(make_logger, save_dir, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = make_logger(mode=None)
    with close_runs([logger]):
        logger.log_metrics({"a": 1.0})
        assert logger.experiment.disabled
    assert not save_dir.exists() and not Path("wandb").exists()
    assert not [r for r in caplog.records if r.name.startswith("anomalib_rd")]


def test_explicit_mode_overrides_the_environment(make_logger, save_dir, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    finish_after = make_logger(mode="offline")
    _ = finish_after.experiment
    finish(finish_after, failed=False)
    assert len(read_runs(save_dir)) == 1


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_unknown_mode_is_a_user_error(make_logger, monkeypatch, source):
    if source == "environment":
        monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(UserError, match=r"mode=offlin\b.*WANDB_MODE"):
        make_logger(mode="offlin" if source == "argument" else None)


def test_none_uses_the_environment(make_logger, monkeypatch, tmp_path):
    values = {
        "WANDB_PROJECT": "theirs",
        "WANDB_RUN_GROUP": "their-group",
        "WANDB_JOB_TYPE": "their-job",
        "WANDB_NAME": "their-name",
        "WANDB_TAGS": "a,b",
        "WANDB_DIR": str(tmp_path / "their-dir"),
    }
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    (tmp_path / "their-dir").mkdir()
    logger = make_logger(project=None, group=None, job_type=None, name=None, tags=[], save_dir=None)
    with close_runs([logger]):
        logger.log_metrics({"a": 1.0})
    (run,) = read_runs(tmp_path / "their-dir")
    assert (run.project, run.group, run.job_type) == ("theirs", "their-group", "their-job")
    assert (run.name, run.tags) == ("their-name", ["a", "b"])
    assert logger.save_dir == values["WANDB_DIR"]


def test_long_blank_and_numeric_tags(make_logger, save_dir):
    logger = make_logger(tags=["x" * 100, " ", 7])
    with close_runs([logger]):
        logger.log_metrics({"a": 1.0})
    (run,) = read_runs(save_dir)
    assert run.tags == ["x" * 64, "7"]


def test_other_loggers_work_without_wandb(monkeypatch, tmp_path):
    monkeypatch.setattr(anomalib_rd, "tracking", anomalib_rd.tracking)  # put back, as the modules
    for name in [key for key in sys.modules if key.startswith("anomalib_rd.tracking")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it now raises ImportError
    tracking = importlib.import_module("anomalib_rd.tracking.wandb_logger")
    logger = CSVLogger(tmp_path / "csv")
    with tracking.close_runs([logger]):
        tracking.log_evaluation(logger, categories={}, metrics={}, scores=pd.DataFrame(), images=[])
        logger.log_metrics({"a": 1.0}, step=0)
        logger.save()
    assert list((tmp_path / "csv").rglob("metrics.csv"))


@pytest.mark.parametrize("project", ["a/b", "what?", "x" * 129])
def test_invalid_project_is_refused(make_logger, project):
    with pytest.raises(UserError, match="project="):
        make_logger(project=project)
