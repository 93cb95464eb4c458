"""Who works on a run, and whether it still does."""

import json
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from anomalib_rd.results.progress import (
    RUNNING,
    SILENT,
    Running,
    RunningElsewhereError,
    claimed,
    first_process,
    is_alive,
    note_epoch,
    read_running,
    touch,
)
from anomalib_rd.results.record import FAILURE, write_failure

RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)


def write_running(folder, **changes):
    known = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "started": time.time(),
        "epoch": 1,
        "epochs": 4,
        "first_epoch": 0,
    }
    folder.mkdir(exist_ok=True)
    (folder / RUNNING).write_text(json.dumps(known | changes))
    return Running(**(known | changes))


def test_a_claimed_run_says_by_whom_and_how_far(tmp_path):
    run = tmp_path / "run"
    with claimed(run):
        running = read_running(run)
        assert (running.pid, running.host) == (os.getpid(), socket.gethostname())
        assert running.epoch is None and is_alive(run, running)
        note_epoch(run, 2, 4, first=True)
        note_epoch(run, 3, 4)
        running = read_running(run)
        assert (running.first_epoch, running.epoch, running.epochs) == (2, 3, 4)
    assert not (run / RUNNING).exists()


def test_a_child_process_may_say_how_far_the_run_is(tmp_path):
    code = "import sys; from pathlib import Path; "
    code += (
        "from anomalib_rd.results.progress import note_epoch; note_epoch(Path(sys.argv[1]), 2, 4)"
    )
    with claimed(tmp_path):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert (read_running(tmp_path).epoch, read_running(tmp_path).pid) == (2, os.getpid())


def test_an_earlier_failure_is_forgotten_when_the_run_is_claimed(tmp_path):
    write_failure(tmp_path, ValueError("full disk"))
    with claimed(tmp_path):
        assert not (tmp_path / FAILURE).exists()


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path):
    halves = [tmp_path / ".result.json.0123abcd.tmp", tmp_path / "checkpoints/.last.ckpt.01.tmp"]
    whole = [tmp_path / "notes.tmp", tmp_path / "checkpoints/last.ckpt"]
    (tmp_path / "checkpoints").mkdir()
    for path in halves + whole:
        path.write_bytes(b"half")
    with claimed(tmp_path):
        assert [path.exists() for path in halves + whole] == [False, False, True, True]


def test_a_failed_run_is_nobodys_and_an_interrupted_one_keeps_its_epoch(tmp_path):
    with pytest.raises(ValueError, match="no"), claimed(tmp_path):
        raise ValueError("no")
    assert not (tmp_path / RUNNING).exists()
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path):
        note_epoch(tmp_path, 3, 4)
        raise KeyboardInterrupt
    left = read_running(tmp_path)
    assert (left.pid, left.epoch, left.epochs) == (None, 3, 4) and not is_alive(tmp_path, left)
    with claimed(tmp_path):
        pass


def test_a_run_that_another_process_works_on_is_left_to_it(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        created = psutil.Process(other.pid).create_time()
        write_running(tmp_path, pid=other.pid, created=created)
        with pytest.raises(RunningElsewhereError, match=f"process {other.pid} on"):
            claimed(tmp_path).__enter__()
        note_epoch(tmp_path, 3, 4)
        assert read_running(tmp_path).epoch == 1
        other.kill()
        # A zombie until its parent asks for it.
        while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not is_alive(tmp_path, read_running(tmp_path))
    finally:
        other.kill()
        other.communicate()
    assert not is_alive(tmp_path, read_running(tmp_path))
    with claimed(tmp_path):
        assert read_running(tmp_path).pid == os.getpid()


def test_a_number_given_to_another_process_since_is_not_the_run(tmp_path):
    running = write_running(tmp_path, created=psutil.Process().create_time() - 3600)
    assert not is_alive(tmp_path, running)


def test_on_another_machine_it_lives_while_it_is_touched(tmp_path):
    running = write_running(tmp_path, host="elsewhere", pid=1)
    assert is_alive(tmp_path, running)
    silent = time.time() - SILENT - 60
    os.utime(tmp_path / RUNNING, (silent, silent))
    assert not is_alive(tmp_path, running)
    touch(tmp_path)
    assert is_alive(tmp_path, running)
    (tmp_path / RUNNING).unlink()
    touch(tmp_path)
    assert not is_alive(tmp_path, running)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_file_is_nobodys(tmp_path, text):
    (tmp_path / RUNNING).write_text(text)
    assert read_running(tmp_path) is None
    with claimed(tmp_path):
        assert read_running(tmp_path).pid == os.getpid()


@pytest.mark.parametrize("rank", RANKS)
def test_other_processes_of_a_distributed_run_claim_nothing(tmp_path, monkeypatch, rank):
    assert first_process()
    monkeypatch.setenv(rank, "1")
    assert not first_process()
    with claimed(tmp_path):
        assert not (tmp_path / RUNNING).exists()
