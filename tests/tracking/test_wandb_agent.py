"""Trials of a W&B sweep: the command is made by wandb's own agent."""

import os
import random
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from small_data import make_mvtec
from wandb_file import read_runs

from anomalib_rd.cli.config import conf_dir, register_resolvers
from anomalib_rd.cli.override_checks import check_overrides
from anomalib_rd.results.record import read_record
from anomalib_rd.results.runs_table import METRICS

SWEEP = Path(__file__).parents[2] / "experiments/wandb-sweep/sweep.yaml"
SMALL = ["data.image_size=[64,64]", "data.num_workers=0", "trainer=cpu", "trainer.max_epochs=1"]
SMALL += ["report.heatmaps=1", "report.gallery=0"]


@pytest.fixture
def sweep():
    return yaml.safe_load(SWEEP.read_text())


@pytest.fixture
def agent(sweep, monkeypatch, tmp_path):
    """A trial's command and environment, as an agent in this folder would start it."""
    from wandb import wandb_agent

    started = mock.Mock()
    monkeypatch.setattr(wandb_agent, "AgentProcess", started)
    told = {"WANDB_SWEEP_ID": "7e123456", "WANDB_PROJECT": "theirs", "WANDB_ENTITY": "team"}
    with mock.patch.dict(os.environ, told):
        agent = wandb_agent.Agent(None, None, sweep_id="7e123456")
        agent._sweep_command = list(sweep["command"])

        def start(run_id, **values):
            parameters = {name: {"value": value} for name, value in values.items()}
            agent._command_run({"run_id": run_id, "args": parameters, "program": sweep["program"]})
            call = started.call_args.kwargs
            return call["command"], call["env"]

        yield start


def drawn(parameter, rng):
    """One of the values that W&B may choose."""
    if "values" in parameter:
        return rng.choice(parameter["values"])
    value = rng.uniform(parameter["min"], parameter["max"])
    return round(value, 1) if "q" in parameter else value


def composed(words):
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=words, return_hydra_config=True)


def test_every_choice_composes(agent, sweep):
    rng = random.Random(0)
    longest = max(len(p.get("values", [])) for p in sweep["parameters"].values())
    for number in range(longest):
        trial = {
            name: p["values"][number % len(p["values"])] if "values" in p else drawn(p, rng)
            for name, p in sweep["parameters"].items()
        }
        (env, program, verb, *words), _ = agent(f"trial{number}", **trial)
        assert (env, program, verb) == ("/usr/bin/env", "anomalib-rd", "train")
        config = composed(words)
        for name, value in trial.items():
            if name != "loss":
                assert OmegaConf.select(config, name) == pytest.approx(value), name
        assert config.model.name == "fmg_rd" and config.validation.kind == "synthetic"


def test_metric_is_of_the_validation(sweep):
    stage, metric = sweep["metric"]["name"].split("/")
    assert (stage, sweep["metric"]["goal"]) == ("val", "maximize") and metric in METRICS
    assert not any("test" in word for word in sweep["command"])


def test_trials_share_the_group_but_no_folder(agent):
    folders, groups = set(), set()
    for run_id in ("trial1", "trial2"):
        (_, _, _, *words), environment = agent(run_id, **{"optimizer.lr": 0.001})
        with mock.patch.dict(os.environ, environment):
            check_overrides(words)
            config = composed(words)
            folders.add(config.hydra.run.dir)
            groups.add(config.logger.wandb.group)
            assert (config.logger.wandb.project, config.logger.wandb.entity) == ("theirs", "team")
    assert folders == {"multirun/wandb-7e123456/trial1", "multirun/wandb-7e123456/trial2"}
    assert groups == {"wandb-7e123456"}


@pytest.mark.slow
def test_trial_is_logged_as_the_agents_run(agent, sweep, tmp_path, monkeypatch):
    make_mvtec(tmp_path / "mvtec", categories=("bottle",), train=10)
    monkeypatch.setenv("MVTEC_ROOT", str(tmp_path / "mvtec"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    values = {name: drawn(p, random.Random(1)) for name, p in sweep["parameters"].items()}
    (_, _, *words), environment = agent("trial1", **values)
    command = [sys.executable, "-m", "anomalib_rd", *words, *SMALL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "multirun/wandb-7e123456/trial1")
    (run,) = read_runs(tmp_path)  # an agent sets WANDB_DIR to its own folder
    assert (run.id, run.project, run.group) == ("trial1", "theirs", "wandb-7e123456")
    assert run.exit_code == 0 and run.config["optimizer.lr"] == values["optimizer.lr"]
    assert run.config["optimizer"]["lr"] == values["optimizer.lr"]
    assert 0 <= run.summary[sweep["metric"]["name"]] <= 1
    assert run.summary["test/image_auroc"] == pytest.approx(record["metrics"]["image_auroc"])
