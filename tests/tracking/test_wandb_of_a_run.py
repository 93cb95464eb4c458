"""A run of the real training, read back from W&B's own file."""

import pytest
from small_data import make_mvtec
from wandb_file import read_runs

from anomalib_rd.results.record import read_record
from anomalib_rd.tracking.wandb_workspace import CONFIG, define_workspace
from anomalib_rd.training.train import train


def test_run_has_every_key_of_the_workspace(compose_config, tmp_path, monkeypatch):
    for name in ("WANDB_PROJECT", "WANDB_RUN_GROUP", "WANDB_NAME", "WANDB_DIR", "WANDB_TAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    words = ["model=rd4ad", "logger=wandb", "sweep=study", "test_during_training=true"]
    # Enough images to hold some out.
    root = make_mvtec(tmp_path / "mvtec", categories=("cloth",), train=10)
    train(compose_config(*words, "validation.kind=synthetic", f"data.root={root}"))
    (run,) = read_runs(tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert (run.project, run.group, run.job_type) == ("anomalib-rd", "study", "rd4ad")
    assert run.name == "rd4ad-tf_efficientnet_lite0-cloth-s0"
    assert {"mvtec", "cloth", "rd4ad", "seed 0"} <= set(run.tags)
    for metric, value in record["metrics"].items():
        assert run.summary[f"test/{metric}"] == pytest.approx(value)
        assert run.summary[f"cloth/{metric}"] == pytest.approx(value)
    assert run.summary["test/images"]["nrows"] == 7
    logged = set().union(*(set(row) for row in run.history))
    assert {"train/loss", "test_curve/aupro", "epoch"} <= logged
    for section in define_workspace("view", "p", None, ["cloth"]).sections:
        for panel in section.panels if section.name != "Sweeps" else ():
            shown = {key for key in panel.keys if not key.startswith(CONFIG)}
            assert shown <= logged | set(run.summary), panel.title
    assert run.exit_code == 0
