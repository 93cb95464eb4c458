"""Claims of runs: processes, locks, progress."""

import errno
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from anomalib_rd.errors import UserError
from anomalib_rd.results import files
from anomalib_rd.results.record import FAILURE, write_failure
from anomalib_rd.results.sweeps import (
    DEAD_AFTER,
    RUNNING,
    Running,
    RunningElsewhereError,
    claim_run,
    is_alive,
    is_main_process,
    read_running,
    record_epoch,
    touch_running,
)

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


@contextmanager
def other_process():
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield other
    finally:
        other.kill()
        other.communicate()


def test_claimed_run_records_process_and_progress(tmp_path):
    run = tmp_path / "run"
    with claim_run(run):
        running = read_running(run)
        assert (running.pid, running.host) == (os.getpid(), socket.gethostname())
        assert running.epoch is None and is_alive(run, running)
        record_epoch(run, 2, 4, first=True)
        record_epoch(run, 3, 4)
        running = read_running(run)
        assert (running.first_epoch, running.epoch, running.epochs) == (2, 3, 4)
    assert not (run / RUNNING).exists()


def test_child_process_may_record_progress(tmp_path):
    code = "import sys; from pathlib import Path; "
    code += (
        "from anomalib_rd.results.sweeps import record_epoch; record_epoch(Path(sys.argv[1]), 2, 4)"
    )
    with claim_run(tmp_path):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert (read_running(tmp_path).epoch, read_running(tmp_path).pid) == (2, os.getpid())


def test_claim_removes_an_earlier_failure(tmp_path):
    write_failure(tmp_path, ValueError("full disk"))
    with claim_run(tmp_path):
        assert not (tmp_path / FAILURE).exists()


DEAD = 2**22 + 1  # above Linux's largest process number


def half(path, pid=DEAD):
    """A temporary file as `write_atomically` names it."""
    return path / f".anomalib-rd.{pid}.0123abcd.tmp"


def test_claim_removes_partial_files(tmp_path):
    folders = ["", "checkpoints", "heatmaps", "per_category/bottle", "per_category/pill/heatmaps"]
    for folder in folders:
        path = tmp_path / folder / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = multiprocessing.get_context("fork").Process(
            target=files.write_atomically, args=(path, lambda file: os._exit(9))
        )
        writer.start()
        writer.join()
    assert len(list(tmp_path.rglob(".*.tmp"))) == len(folders)
    with claim_run(tmp_path):
        assert not list(tmp_path.rglob(".*.tmp"))


def test_claim_removes_nothing_else(tmp_path):
    links = tmp_path / "elsewhere"
    kept = [
        tmp_path / "notes.tmp",
        tmp_path / ".draft.tmp",
        tmp_path / ".result.json.0123abcd.tmp",  # whose it is, the name does not tell
        tmp_path / ".anomalib-rd.notes.tmp",
        half(tmp_path, pid=os.getppid()),  # another process is writing: a report, say
        tmp_path / "checkpoints/last.ckpt",
        tmp_path / "checkpoints/.anomalib-rd.tmp",
        half(tmp_path / "checkpoints/older"),
        half(tmp_path / "runs/other"),
        half(tmp_path / "runs/other/checkpoints"),
        half(tmp_path / ".git"),
        half(links),
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    (tmp_path / "heatmaps").symlink_to(links)
    with claim_run(tmp_path):
        assert [path for path in kept if not path.exists()] == []


def test_refused_process_removes_nothing(tmp_path):
    running = half(tmp_path)
    running.write_bytes(b"half")
    with other_process() as other:
        write_running(tmp_path, pid=other.pid, created=psutil.Process(other.pid).create_time())
        with pytest.raises(RunningElsewhereError):
            claim_run(tmp_path).__enter__()
    assert running.exists()


CLAIMED, REFUSED = 1, 2


def claim_when_told(folders, number, all_of_them, outcomes):
    """Claims each run the moment all others do, and keeps it until they are through."""
    for turn, folder in enumerate(folders):
        all_of_them.wait(timeout=30)
        try:
            with claim_run(folder):
                outcomes[8 * turn + number] = CLAIMED
                all_of_them.wait(timeout=30)
        except RunningElsewhereError:
            outcomes[8 * turn + number] = REFUSED
            all_of_them.wait(timeout=30)


def test_one_of_eight_processes_gets_the_run(tmp_path):
    """Twenty times, on new folders and on those that a killed process has left."""
    folders = [tmp_path / str(turn) for turn in range(20)]
    for folder in folders[::2]:
        write_running(folder, pid=DEAD)
        half(folder).write_bytes(b"half")
    forking = multiprocessing.get_context("fork")
    all_of_them, outcomes = forking.Barrier(8), forking.Array("i", 160)
    jobs = [
        forking.Process(target=claim_when_told, args=(folders, number, all_of_them, outcomes))
        for number in range(8)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(100)
    for turn, folder in enumerate(folders):
        assert sorted(outcomes[8 * turn : 8 * turn + 8]) == [CLAIMED] + 7 * [REFUSED], turn
        assert {path.name for path in folder.iterdir()} == {".running.lock"}
    assert [job.exitcode for job in jobs] == [0] * 8


def test_killed_process_releases_its_lock(tmp_path):
    code = "import os, sys; from pathlib import Path; "
    code += "from anomalib_rd.results.files import file_lock; "
    code += "lock = file_lock(Path(sys.argv[1])); lock.__enter__(); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / ".running.lock")])
    assert done.returncode == -9
    began = time.monotonic()
    with claim_run(tmp_path):
        assert time.monotonic() - began < 5


def test_lock_timeout_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_TIMEOUT", 0.1)
    refused = pytest.raises(UserError, match=r"\.running\.lock")
    with files.file_lock(tmp_path / ".running.lock"), refused:
        claim_run(tmp_path).__enter__()
    with claim_run(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_system_without_locks(tmp_path, monkeypatch, number):
    class NoLock:
        def __init__(self, *args, **options):
            pass

        def acquire(self):
            raise OSError(number, "no locks")

        def release(self):
            pass

    monkeypatch.setattr(files, "FileLock", NoLock)
    with claim_run(tmp_path):
        assert read_running(tmp_path).pid == os.getpid()
    assert not (tmp_path / RUNNING).exists()


def test_run_taken_over_by_another_process(tmp_path):
    """This one was silent for so long, on another machine, that it was taken for dead."""
    with pytest.raises(KeyboardInterrupt), claim_run(tmp_path):
        write_running(tmp_path, host="elsewhere", pid=17)
        record_epoch(tmp_path, 3, 4)
        raise KeyboardInterrupt
    assert (read_running(tmp_path).pid, read_running(tmp_path).epoch) == (17, 1)
    with pytest.raises(RunningElsewhereError, match="elsewhere"):
        claim_run(tmp_path).__enter__()


def test_failed_run_is_released_and_interrupted_run_keeps_its_epoch(tmp_path):
    with pytest.raises(ValueError, match="no"), claim_run(tmp_path):
        raise ValueError("no")
    assert not (tmp_path / RUNNING).exists()
    with pytest.raises(KeyboardInterrupt), claim_run(tmp_path):
        record_epoch(tmp_path, 3, 4)
        raise KeyboardInterrupt
    left = read_running(tmp_path)
    assert (left.pid, left.epoch, left.epochs) == (None, 3, 4) and not is_alive(tmp_path, left)
    with claim_run(tmp_path):
        pass


def test_run_of_another_process_is_refused(tmp_path):
    with other_process() as other:
        created = psutil.Process(other.pid).create_time()
        write_running(tmp_path, pid=other.pid, created=created)
        with pytest.raises(RunningElsewhereError, match=f"process {other.pid} on"):
            claim_run(tmp_path).__enter__()
        record_epoch(tmp_path, 3, 4)
        assert read_running(tmp_path).epoch == 1
        other.kill()
        # A zombie until its parent asks for it.
        while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not is_alive(tmp_path, read_running(tmp_path))
    assert not is_alive(tmp_path, read_running(tmp_path))
    with claim_run(tmp_path):
        assert read_running(tmp_path).pid == os.getpid()


def test_reused_process_id(tmp_path):
    running = write_running(tmp_path, created=psutil.Process().create_time() - 3600)
    assert not is_alive(tmp_path, running)


def test_process_on_another_machine_is_alive_while_it_touches_its_file(tmp_path):
    running = write_running(tmp_path, host="elsewhere", pid=1)
    assert is_alive(tmp_path, running)
    silent = time.time() - DEAD_AFTER - 60
    os.utime(tmp_path / RUNNING, (silent, silent))
    assert not is_alive(tmp_path, running)
    touch_running(tmp_path)
    assert is_alive(tmp_path, running)
    (tmp_path / RUNNING).unlink()
    touch_running(tmp_path)
    assert not is_alive(tmp_path, running)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_damaged_running_file(tmp_path, text):
    (tmp_path / RUNNING).write_text(text)
    assert read_running(tmp_path) is None
    with claim_run(tmp_path):
        assert read_running(tmp_path).pid == os.getpid()


@pytest.mark.parametrize("rank", RANKS)
def test_only_the_main_process_claims(tmp_path, monkeypatch, rank):
    assert is_main_process()
    monkeypatch.setenv(rank, "1")
    assert not is_main_process()
    with claim_run(tmp_path):
        assert not (tmp_path / RUNNING).exists()
