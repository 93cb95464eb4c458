"""Who runs a run, and how far it is: ``running.json``, there while a process works on it.

==================== =========================================================================
``pid, created``     the process and when it started (seconds since the epoch); pid null: it left
``host``             the machine's name
``started``          when it took the run up, seconds since the epoch
``epoch, epochs``    epochs trained, and to be trained; null until training starts
``first_epoch``      epochs that an earlier process had trained
==================== =========================================================================

A process that is killed leaves the file behind: it counts only while its process lives, or, on
another machine, while it is touched.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import psutil

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import clear_halves, locked, read_json, write_json
from anomalib_rd.results.record import FAILURE
from anomalib_rd.results.unified import PER_CATEGORY

RUNNING, LOCK = "running.json", ".running.lock"
# Where a run writes: below its folder, which may hold other files too.
OWN_FOLDERS = (
    "",
    ".hydra",
    "checkpoints",
    "heatmaps",
    f"{PER_CATEGORY}/*",
    f"{PER_CATEGORY}/*/heatmaps",
)
# A process on another machine can't be looked at: its file is touched at least each
# `TOUCH_EVERY`, and taken for dead after `SILENT`. Seconds.
TOUCH_EVERY, SILENT = 30.0, 600.0
# The clock that a process's start is computed with may be set while it runs.
CLOCK_TOLERANCE = 10.0


class RunningElsewhereError(UserError):
    """Another process works on this run."""


@dataclass(frozen=True)
class Running:
    """What ``running.json`` holds; see the top of this file."""

    pid: int | None
    created: float
    host: str
    started: float
    epoch: int | None = None
    epochs: int | None = None
    first_epoch: int = 0


def first_process() -> bool:
    """Whether this is the process that keeps the run's files: the first of a DDP run's."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


@contextmanager
def claimed(run_dir: Path) -> Iterator[None]:
    """Mark the run as this process's while the block lasts.

    An earlier failure is forgotten, and what a killed process left half-written is removed.

    Other processes of a DDP run pass through.

    Raises:
        RunningElsewhereError: another process works on it.
    """
    if not first_process():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    mine = _claim(run_dir)
    try:
        for pattern in OWN_FOLDERS:
            for folder in run_dir.glob(pattern) if pattern else [run_dir]:
                clear_halves(folder)
        (run_dir / FAILURE).unlink(missing_ok=True)
        yield
    except Exception:
        _release(run_dir, mine)
        raise
    except BaseException:  # interrupted: how far it came is worth knowing
        _release(run_dir, mine, interrupted=True)
        raise
    _release(run_dir, mine)


def _claim(run_dir: Path) -> Running:
    """Write ``running.json``, unless it names a process that still works on the run."""
    created = psutil.Process().create_time()
    mine = Running(os.getpid(), created, socket.gethostname(), time.time())
    with locked(run_dir / LOCK):
        other = read_running(run_dir)
        if other is not None and is_alive(run_dir, other):
            raise RunningElsewhereError(
                f"{run_dir}: process {other.pid} on {other.host} works on this run; "
                "wait for it or end it"
            )
        write_json(run_dir / RUNNING, asdict(mine))
    return mine


def _release(run_dir: Path, mine: Running, interrupted: bool = False) -> None:
    """Give the run back, unless another process took it over from this one, silent for long."""
    with locked(run_dir / LOCK):
        now = read_running(run_dir)
        if now is not None and (now.pid, now.host) != (mine.pid, mine.host):
            return
        if interrupted:
            write_json(run_dir / RUNNING, asdict(replace(now or mine, pid=None)))
        else:
            (run_dir / RUNNING).unlink(missing_ok=True)


def note_epoch(run_dir: Path, epoch: int, epochs: int | None, first: bool = False) -> None:
    """Write how many epochs are trained; nothing where the run is not `claimed`.

    Args:
        run_dir: the run's folder.
        epoch: epochs trained so far.
        epochs: epochs to be trained in all, None if there is no limit.
        first: whether this process begins to train here.
    """
    running = read_running(run_dir)
    # The processes of a DDP run may be children of the one that claimed it.
    if running is None or running.host != socket.gethostname():
        return
    if running.pid not in (os.getpid(), os.getppid()):
        return
    now = replace(running, epoch=epoch, epochs=epochs)
    write_json(run_dir / RUNNING, asdict(replace(now, first_epoch=epoch) if first else now))


def touch(run_dir: Path) -> None:
    """Tell other machines that the run goes on."""
    with suppress(FileNotFoundError):
        os.utime(run_dir / RUNNING)


def read_running(run_dir: Path) -> Running | None:
    """What ``running.json`` says; None if there is none, or none that can be read."""
    try:
        found = read_json(run_dir / RUNNING)
        return Running(**{f.name: found[f.name] for f in fields(Running)})
    except (UserError, KeyError):
        return None


def is_alive(run_dir: Path, running: Running) -> bool:
    """Whether the process still works on the run."""
    if running.pid is None:
        return False
    if running.host != socket.gethostname():
        try:
            return time.time() - (run_dir / RUNNING).stat().st_mtime < SILENT
        except FileNotFoundError:
            return False
    try:
        process = psutil.Process(running.pid)
        same = abs(process.create_time() - running.created) < CLOCK_TOLERANCE
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
