import os
import sys
import threading
from pathlib import Path

import pytest

# The made-up runs of tests/results serve here too.
sys.path.append(str(Path(__file__).parents[1] / "results"))


@pytest.fixture(autouse=True)
def clean_wandb(tmp_path, monkeypatch):
    """No login, no settings of this machine's user, and a fresh wandb session per test."""
    import wandb

    # First, or the address of a service that is gone would be put back at the end.
    wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)
    for name in [key for key in os.environ if key.startswith("WANDB_") or key == "NETRC"]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name, folder in {"CONFIG": "config", "CACHE": "cache", "DATA": "data"}.items():
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home / folder))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    yield
    if wandb.run is not None:
        wandb.run.finish(exit_code=1)
    wandb.teardown()


@pytest.fixture
def save_dir(tmp_path) -> Path:
    return tmp_path / "runs" / "bottle"  # not there yet: the logger has to make it


@pytest.fixture
def make_logger(save_dir):
    from anomalib_rd.tracking.wandb_logger import wandb_logger

    def make(**changes):
        arguments = {
            "project": "anomalib-rd",
            "entity": None,
            "group": "components",
            "job_type": "fmg_rd",
            "name": "bottle-fmg_rd-s0",
            "tags": ["bottle", "object", "resnet18", "seed0"],
            "save_dir": save_dir,
            "mode": "offline",
        }
        return wandb_logger(**(arguments | changes))

    return make


@pytest.fixture
def stub(monkeypatch):
    """A server on loopback, and a login for it."""
    from wandb_stub import KEY, Stub

    server = Stub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
