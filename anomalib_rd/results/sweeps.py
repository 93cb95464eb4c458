"""Sweep folders: which runs are complete, running, failed or missing."""

import math
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import file_lock, read_json, remove_partial_files, write_json
from anomalib_rd.results.record import (
    FAILURE,
    PER_CATEGORY,
    RESULT,
    read_failure,
    read_record,
    trainer_limits,
)

RUNNING, RUN_LOCK = "running.json", ".running.lock"
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


def is_main_process() -> bool:
    """Whether this is the process that keeps the run's files: the first of a DDP run's."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


@contextmanager
def claim_run(run_dir: Path) -> Iterator[None]:
    """Mark the run as this process's while the block lasts.

    An earlier failure is forgotten, and what a killed process left half-written is removed.

    Other processes of a DDP run pass through.

    Raises:
        RunningElsewhereError: another process works on it.
    """
    if not is_main_process():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    mine = _claim(run_dir)
    try:
        for pattern in OWN_FOLDERS:
            for folder in run_dir.glob(pattern) if pattern else [run_dir]:
                remove_partial_files(folder)
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
    with file_lock(run_dir / RUN_LOCK):
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
    with file_lock(run_dir / RUN_LOCK):
        now = read_running(run_dir)
        if now is not None and (now.pid, now.host) != (mine.pid, mine.host):
            return
        if interrupted:
            write_json(run_dir / RUNNING, asdict(replace(now or mine, pid=None)))
        else:
            (run_dir / RUNNING).unlink(missing_ok=True)


def record_epoch(run_dir: Path, epoch: int, epochs: int | None, first: bool = False) -> None:
    """Write how many epochs are trained; nothing where the run is not `claim_run`.

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


def touch_running(run_dir: Path) -> None:
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


SWEEP, LOCK = "sweep.json", ".sweep.lock"
CHECKPOINTS = "checkpoints"
State = Literal["done", "partial", "running", "failed", "interrupted", "missing"]
STATES: tuple[State, ...] = ("done", "partial", "running", "failed", "interrupted", "missing")


@dataclass(frozen=True)
class RunState:
    """One run of a sweep.

    Attributes:
        run: its folder below the sweep's.
        state: ``partial`` is over, but was cut short by Lightning's limits; ``interrupted`` has
            begun and is left; ``missing`` has not begun.
        running: who works on it or was the last to; None if done, failed or missing.
        reason: why it failed or is partial, in one line.
        seconds: what it took if done; None if unknown.
        whole: whether those seconds are the whole run's: it was not resumed on the way.
    """

    run: str
    state: State
    running: Running | None = None
    reason: str | None = None
    seconds: float | None = None
    whole: bool = True


def add_jobs(sweep: Path, command: str, jobs: Mapping[str, Sequence[str]]) -> None:
    """Keep what a command is going to run.

    Args:
        sweep: the sweep's folder, made if it does not exist.
        command: as typed.
        jobs: the runs' folders below the sweep's -> their overrides.
    """
    sweep.mkdir(parents=True, exist_ok=True)
    entry = {
        "command": command,
        "started": time.time(),
        "jobs": {run: list(overrides) for run, overrides in jobs.items()},
    }
    with file_lock(sweep / LOCK):
        others = [known for known in read_commands(sweep) if known["command"] != command]
        write_json(sweep / SWEEP, {"commands": [*others, entry]})


def read_commands(sweep: Path) -> list[dict[str, Any]]:
    """The commands that ``sweep.json`` knows; none where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = sweep / SWEEP
    if not path.is_file():
        return []
    commands = read_json(path).get("commands")
    if not isinstance(commands, list):
        raise UserError(f"{path}: lacks 'commands'; remove it and start the sweep's command again")
    return commands


def read_states(sweep: Path) -> list[RunState]:
    """Every run that was asked for, and every other one found in the sweep's folder.

    Raises:
        UserError: no such folder, no run in it or asked for, or a damaged list of its jobs.
    """
    if not sweep.is_dir():
        raise UserError(f"{sweep}: no such folder; give a sweep's, such as multirun/NAME")
    wanted = [run for command in read_commands(sweep) for run in command["jobs"]]
    runs = dict.fromkeys([*wanted, *find_started_runs(sweep)])
    if not runs:
        raise UserError(f"{sweep}: holds no run; give a sweep's folder, such as multirun/NAME")
    return [read_state(sweep, run) for run in runs]


def find_started_runs(sweep: Path) -> list[str]:
    """The runs below a folder that have left something to go on with, sorted."""
    found = []
    for folder, children, files in os.walk(sweep):
        if CHECKPOINTS in children or {RESULT, FAILURE, RUNNING} & set(files):
            found.append(Path(folder).relative_to(sweep).as_posix())
            children.clear()
        children[:] = [name for name in children if not name.startswith(".")]
    return sorted(found)


def read_state(sweep: Path, run: str) -> RunState:
    """In which state a run is, by what its folder holds; failed if its record is damaged."""
    folder = sweep / run
    if (folder / RESULT).is_file():
        try:
            record = read_record(folder)
        except UserError as error:
            return RunState(run, "failed", reason=str(error))
        if limits := trainer_limits(record):
            return RunState(run, "partial", reason=limits)
        seconds = (record.get("duration_s") or {}).get("total")
        resumed = (record.get("protocol") or {}).get("resumed_from_epoch")
        return RunState(run, "done", seconds=seconds, whole=resumed is None)
    running = read_running(folder)
    if running is not None and is_alive(folder, running):
        return RunState(run, "running", running)
    if (folder / FAILURE).is_file():
        return RunState(run, "failed", reason=failure_reason(folder))
    if running is not None or (folder / CHECKPOINTS / "last.ckpt").is_file():
        return RunState(run, "interrupted", running)
    return RunState(run, "missing")


def job_names(sweep: Path) -> dict[str, str]:
    """Run's folder below the sweep's -> the overrides in which it differs from other jobs.

    As they were typed. Jobs that differ in none, or of a single job, are not in it.

    Raises:
        UserError: ``sweep.json`` is damaged.
    """
    jobs = {run: words for c in read_commands(sweep) for run, words in c["jobs"].items()}
    common = set.intersection(*map(set, jobs.values())) if len(jobs) > 1 else set()
    # The seed comes last: it tells apart what is otherwise the same.
    names = {
        run: " ".join(
            sorted(set(words) - common, key=lambda w: (w.startswith("seed="), words.index(w)))
        )
        for run, words in jobs.items()
    }
    return {run: name for run, name in names.items() if name} if len(jobs) > 1 else {}


def failure_reason(folder: Path) -> str:
    """Why a run failed, in one line."""
    try:
        return " ".join(str(read_failure(folder).get("error", "")).split())
    except UserError:
        return f"its {FAILURE} cannot be read"


def count_states(states: Sequence[RunState]) -> dict[State, int]:
    """How many runs are in each state; all states are there."""
    found = Counter(state.state for state in states)
    return {state: found[state] for state in STATES}


def seconds_left(states: Sequence[RunState], now: float) -> float | None:
    """Seconds until all but the failed runs are done, if as many run at a time as now do.

    A run takes the mean of those done; before one is, what those running make of their epochs.

    Args:
        states: of `read_states`.
        now: seconds since the epoch.

    Returns:
        0 if nothing is left; None if nothing runs, or nothing is known yet.
    """
    open_runs = [s for s in states if s.state in ("running", "interrupted", "missing")]
    running = [s for s in open_runs if s.state == "running"]
    if not open_runs:
        return 0.0
    typical = typical_seconds(states, now)
    if not running or typical is None:
        return None
    shares = [1 - share_done(s.running) for s in open_runs]
    slowest = max(1 - share_done(s.running) for s in running)
    return typical * max(sum(shares) / len(running), slowest)


def typical_seconds(states: Sequence[RunState], now: float) -> float | None:
    """Mean seconds of a run; None if nothing is known yet."""
    done = [s for s in states if s.state == "done" and s.seconds]
    # A resumed run's seconds are those of its last part.
    known = [s.seconds for s in done if s.whole and s.seconds]
    if not known:
        known = [
            (now - s.running.started) / share
            for s in states
            if s.state == "running" and s.running and (share := share_done(s.running, mine=True))
        ]
    return math.fsum(known) / len(known) if known else None


def share_done(running: Running | None, mine: bool = False) -> float:
    """The part of a run's epochs that are trained; ``mine``: by the process at work alone."""
    if running is None or not running.epoch or not running.epochs:
        return 0.0
    first = running.first_epoch if mine else 0
    return min(1.0, (running.epoch - first) / running.epochs)
