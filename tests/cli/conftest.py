"""Trained runs, and commands in processes that start quickly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from trained_runs import data_root, make_run, run, run_copy, tiny_teacher

__all__ = ["data_root", "make_run", "run", "run_copy", "tiny_teacher"]


@pytest.fixture(scope="session")
def forked():
    """Run ``anomalib-rd`` in a process that has imported torch; gives ``status, out, err``.

    ``env`` sets environment variables, or removes those that are None.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "WANDB_MODE": "offline"}
    environment.pop("HYDRA_FULL_ERROR", None)
    environment.pop("WANDB_SERVICE", None)  # of another test's run: it is gone
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("forked.py")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def start(*words, cwd, env=None, seconds=200, until_training=False):
        request = {"words": [str(word) for word in words], "cwd": str(cwd), "env": env or {}}
        request |= {"seconds": seconds, "until_training": until_training}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return SimpleNamespace(**json.loads(server.stdout.readline()))

    assert server.stdout.readline() == "ready\n"
    yield start
    server.stdin.close()
    server.wait()
