"""Hyper-parameter search by the held-out images, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from small_data import make_mvtec

SEARCH = ["train", "-m", "hparams_search=optuna", "hydra.sweeper.n_trials=2", "sweep=s"]
SMALL = ["data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "data.num_workers=0"]
SMALL += ["trainer=cpu", "trainer.max_epochs=1", "model=rd4ad", "logger=none", "report.heatmaps=0"]
SMALL += ["report.gallery=0", "callbacks=none", "+trainer.enable_checkpointing=false"]


@pytest.fixture
def search(tmp_path):
    """Start a search in an empty folder."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    root = make_mvtec(tmp_path / "mvtec", categories=("cloth",), train=8)

    def start(*words):
        return subprocess.run(
            [sys.executable, "-m", "anomalib_rd", *SEARCH, *SMALL, f"data.root={root}", *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=280,
        )

    return start


@pytest.mark.slow
def test_a_search_takes_the_trial_with_the_best_validation(search, tmp_path):
    done = search()
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert len(records) == 2
    for record in records:
        assert record["protocol"]["validation"]["kind"] == "synthetic"
        assert record["protocol"]["chosen_on_test"] is False
        assert record["data"]["train_images"] == 4
    found = yaml.safe_load((tmp_path / "multirun/s/optimization_results.yaml").read_text())
    values = {r["config"]["optimizer"]["lr"]: r["validation"]["image_auroc"] for r in records}
    assert found["best_value"] == pytest.approx(max(values.values()))
    assert values[found["best_params"]["optimizer.lr"]] == pytest.approx(found["best_value"])


def test_a_search_on_the_test_set_is_refused_in_one_line(search, tmp_path):
    refused = search("optimized_metric=test/image_auroc")
    assert refused.returncode == 2
    line = refused.stderr.strip().splitlines()[-1]
    assert line.startswith("anomalib-rd: optimized_metric=test/image_auroc: ")
    assert "optimize_on_test=true" in line and not list(tmp_path.rglob("result.json"))
