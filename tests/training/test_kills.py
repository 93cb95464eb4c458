"""A run killed with SIGKILL, even while writing a file, ends like an uninterrupted one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[2] / "experiments/trust/kills.py"


@pytest.mark.slow
@pytest.mark.timeout(1000)  # where the cores are shared
def test_a_killed_run_is_resumed_from_complete_files(tmp_path):
    files = ["--files", "last.ckpt", "result.json"]
    command = [sys.executable, KILLS, "--out", tmp_path, "--kills", "3", *files]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    proof = json.loads((tmp_path / "kills.json").read_text())
    in_checkpoint, _, in_result = proof["kills"]
    assert proof["survived"] == "3 of 3"
    assert in_checkpoint["killed"] and not in_checkpoint["complete_when_killed"]
    assert in_result["killed"] and in_result["resumed_after_epoch"] == 4
    assert not in_result["complete_when_killed"]
    assert not any(kill["temporary_files_at_the_end"] for kill in (in_checkpoint, in_result))
