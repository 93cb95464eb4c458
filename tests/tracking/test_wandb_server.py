"""Servers that do not answer: on loopback, never the real one."""

import os
import subprocess
import sys
import time

import pytest
from wandb_file import read_runs
from wandb_stub import KEY

from anomalib_rd.tracking.wandb_logger import close_runs
from anomalib_rd.tracking.wandb_runs import has_login

# Left to itself W&B waits 90 s at the start and forever at the end; a busy machine is slow, too.
LONG = 60
NO_SERVER = "http://127.0.0.1:9"


def ours(caplog):
    return [r.getMessage() for r in caplog.records if r.name.startswith("anomalib_rd")]


def test_hanging_server_goes_offline(stub, make_logger, save_dir, monkeypatch, caplog):
    stub.hangs.set()
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    logger = make_logger(mode=None, id="given-id")
    started = time.monotonic()
    with close_runs([logger]):
        logger.log_metrics({"train/loss": 1.0})
    assert time.monotonic() - started < LONG
    run = read_runs(save_dir)[-1]
    assert (run.id, run.summary["train/loss"], run.exit_code) == ("given-id", 1.0, 0)
    (line,) = ours(caplog)
    assert line.startswith("W&B: cannot log online (")
    assert f"{run.folder.name}`" in line


@pytest.mark.parametrize("status", [401, 403, 500, None])
def test_refusing_or_absent_server_goes_offline(
    stub, make_logger, save_dir, monkeypatch, caplog, status
):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    if status is None:
        monkeypatch.setenv("WANDB_BASE_URL", NO_SERVER)
    stub.refuses = status
    logger = make_logger(mode=None, id="given-id")
    with close_runs([logger]):
        logger.log_metrics({"train/loss": 1.0})
    run = read_runs(save_dir)[-1]
    assert (run.id, run.summary["train/loss"], run.exit_code) == ("given-id", 1.0, 0)
    (line,) = ours(caplog)
    assert line.startswith("W&B: cannot log online (") and "offline" in line
    stub.refuses = None
    environment = {**os.environ, "WANDB_BASE_URL": stub.url}
    command = [sys.executable, "-m", "wandb", "sync", str(run.folder)]
    sent = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "UpsertBucket" in stub.operations
    assert any(path.endswith("/file_stream") for path in stub.paths)


def test_server_that_stops_answering(stub, make_logger, save_dir, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")
    logger = make_logger(mode=None)
    with close_runs([logger]):
        assert not logger.experiment.offline and "UpsertBucket" in stub.operations
        stub.hangs.set()
        logger.log_metrics({"train/loss": 1.0})
        started = time.monotonic()
    assert time.monotonic() - started < LONG
    assert "upload not finished" in ours(caplog)[-1] and "wandb sync " in ours(caplog)[-1]


def test_malformed_key_goes_offline(stub, make_logger, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    logger = make_logger(mode=None)
    with close_runs([logger]):
        assert logger.experiment.offline
    (line,) = ours(caplog)
    assert "cannot log online" in line and "too-short" not in line


def test_netrc_is_a_login(tmp_path, monkeypatch):
    import wandb

    settings = wandb.setup().settings
    assert not has_login(settings)
    netrc = tmp_path / "elsewhere"
    monkeypatch.setenv("NETRC", str(netrc))
    assert not has_login(settings)  # named, not there
    netrc.write_text(f"machine other.example login user password {KEY}\n")
    assert not has_login(settings)
    netrc.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert has_login(settings)
    netrc.write_text("machine api.wandb.ai login\n")  # broken
    assert not has_login(settings)


def test_netrc_of_a_private_server(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example:8080")
    settings = wandb.setup().settings
    home_file = tmp_path / "home" / ".netrc"
    home_file.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert not has_login(settings)
    home_file.write_text(f"machine wandb.example:8080 login user password {KEY}\n")
    assert has_login(settings)


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_environment_is_a_login(monkeypatch, name):
    import wandb

    settings = wandb.setup().settings
    monkeypatch.setenv(name, KEY)
    assert has_login(settings)
