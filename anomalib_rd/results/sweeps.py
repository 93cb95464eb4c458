"""Sweep folders: which runs are done, running, failed, interrupted or missing.

``<sweep>/sweep.json`` lists the commands and their jobs; ``<run>/running.json`` the process that
works on a run, and its progress.
"""

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
from anomalib_rd.results.files import (
    file_lock,
    read_json,
    remove_partial_files,
    write_json,
)
from anomalib_rd.results.record import (
    FAILURE,
    PER_CATEGORY,
    RESULT,
    read_failure,
    read_record,
    trainer_limits,
)

RUNNING, RUN_LOCK = "running.json", ".running.lock"
SWEEP, SWEEP_LOCK = "sweep.json", ".sweep.lock"
CHECKPOINTS = "checkpoints"
# The subfolders that a run writes to. A run's folder may contain other folders too.
RUN_FOLDERS = (
    ".hydra",
    CHECKPOINTS,
    "heatmaps",
    f"{PER_CATEGORY}/*",
    f"{PER_CATEGORY}/*/heatmaps",
)
# A running process touches its file at least every `TOUCH_EVERY` seconds. A process on another
# machine counts as dead after `DEAD_AFTER` seconds without a touch.
TOUCH_EVERY, DEAD_AFTER = 30.0, 600.0
CLOCK_TOLERANCE = 10.0  # seconds; the clock may be set while a process runs


class RunningElsewhereError(UserError):
    """Another process works on this run."""


@dataclass(frozen=True)
class Running:
    """``running.json``: the process (None: it was interrupted) and the progress of a run.

    ``created`` is the start of the process and ``started`` that of this run, in seconds since 1970;
    ``first_epoch`` is the epoch at which the process began.
    """

    pid: int | None
    created: float
    host: str
    started: float
    epoch: int | None = None
    epochs: int | None = None
    first_epoch: int = 0


def is_main_process() -> bool:
    """Whether this process writes the run's files: the first one of a DDP run."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


@contextmanager
def claim_run(run_dir: Path) -> Iterator[None]:
    """Claim the run for this process inside the block.

    Removes ``failure.json`` and partial files of killed processes. In a DDP run only the main
    process does so.

    Raises:
        RunningElsewhereError: another process works on it.
    """
    if not is_main_process():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    mine = _claim(run_dir)
    try:
        remove_partial_files(run_dir)
        for pattern in RUN_FOLDERS:
            for folder in run_dir.glob(pattern):
                remove_partial_files(folder)
        (run_dir / FAILURE).unlink(missing_ok=True)
        yield
    except BaseException as error:
        # An interrupted run keeps its progress.
        _release(run_dir, mine, interrupted=not isinstance(error, Exception))
        raise
    _release(run_dir, mine)


def _claim(run_dir: Path) -> Running:
    created = psutil.Process().create_time()
    mine = Running(os.getpid(), created, socket.gethostname(), time.time())
    with file_lock(run_dir / RUN_LOCK):
        owner = read_running(run_dir)
        if owner is not None and is_alive(run_dir, owner):
            raise RunningElsewhereError(
                f"{run_dir}: process {owner.pid} on {owner.host} works on this run; "
                "wait for it or end it"
            )
        write_json(run_dir / RUNNING, asdict(mine))
    return mine


def _release(run_dir: Path, mine: Running, interrupted: bool = False) -> None:
    """End the claim, unless another process has taken over the run."""
    with file_lock(run_dir / RUN_LOCK):
        current = read_running(run_dir)
        if current is not None and (current.pid, current.host) != (mine.pid, mine.host):
            return
        if interrupted:
            write_json(run_dir / RUNNING, asdict(replace(current or mine, pid=None)))
        else:
            (run_dir / RUNNING).unlink(missing_ok=True)


def record_epoch(run_dir: Path, epoch: int, epochs: int | None, first: bool = False) -> None:
    """Record the progress of a run, if this process or its parent has claimed it.

    ``epoch`` of ``epochs`` (None: no limit) are trained; ``first``: this process starts here.
    """
    running = read_running(run_dir)
    # The processes of a DDP run may be children of the one that claimed it.
    if (
        running is None
        or running.host != socket.gethostname()
        or running.pid not in (os.getpid(), os.getppid())
    ):
        return
    first_epoch = epoch if first else running.first_epoch
    progress = replace(running, epoch=epoch, epochs=epochs, first_epoch=first_epoch)
    write_json(run_dir / RUNNING, asdict(progress))


def touch_running(run_dir: Path) -> None:
    """Signal other machines that the run is alive."""
    with suppress(FileNotFoundError):
        os.utime(run_dir / RUNNING)


def read_running(run_dir: Path) -> Running | None:
    """Read ``running.json``; None if it is missing or damaged."""
    try:
        values = read_json(run_dir / RUNNING)
        return Running(**{f.name: values[f.name] for f in fields(Running)})
    except (UserError, KeyError):
        return None


def is_alive(run_dir: Path, running: Running) -> bool:
    """Whether the process still works on the run."""
    if running.pid is None:
        return False
    if running.host != socket.gethostname():
        try:
            return time.time() - (run_dir / RUNNING).stat().st_mtime < DEAD_AFTER
        except FileNotFoundError:
            return False
    try:
        process = psutil.Process(running.pid)
        same = abs(process.create_time() - running.created) < CLOCK_TOLERANCE
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


State = Literal["done", "partial", "running", "failed", "interrupted", "missing"]
STATES: tuple[State, ...] = ("done", "partial", "running", "failed", "interrupted", "missing")


@dataclass(frozen=True)
class RunState:
    """State of one run of a sweep.

    Attributes:
        run: folder of the run, relative to the sweep's.
        state: a ``partial`` run is complete, but was limited by Lightning's trainer arguments; an
            ``interrupted`` one was started and has no process; a ``missing`` one was not started.
        running: current or last process; None if done, failed or missing.
        reason: one line on why it failed or is partial.
        seconds: duration if done; None if unknown.
        resumed: whether the run was resumed, so that the duration is that of its last part.
    """

    run: str
    state: State
    running: Running | None = None
    reason: str | None = None
    seconds: float | None = None
    resumed: bool = False


def add_jobs(sweep: Path, command: str, jobs: Mapping[str, Sequence[str]]) -> None:
    """Add a command, as typed, and its jobs (folder of the run -> overrides) to ``sweep.json``."""
    sweep.mkdir(parents=True, exist_ok=True)
    entry = {
        "command": command,
        "started": time.time(),
        "jobs": {run: list(overrides) for run, overrides in jobs.items()},
    }
    with file_lock(sweep / SWEEP_LOCK):
        others = [known for known in read_commands(sweep) if known["command"] != command]
        write_json(sweep / SWEEP, {"commands": [*others, entry]})


def read_commands(sweep: Path) -> list[dict[str, Any]]:
    """The commands in ``sweep.json``; empty without this file.

    Raises:
        UserError: the file is damaged.
    """
    path = sweep / SWEEP
    if not path.is_file():
        return []
    commands = read_json(path).get("commands")
    if not isinstance(commands, list):
        raise UserError(f"{path}: has no list 'commands'; remove it and start the command again")
    return commands


def job_names(sweep: Path) -> dict[str, str]:
    """Folder of the run -> its overrides, as typed, without those that all jobs share.

    Jobs without such an override are left out.

    Raises:
        UserError: ``sweep.json`` is damaged.
    """
    jobs = {run: overrides for c in read_commands(sweep) for run, overrides in c["jobs"].items()}
    if len(jobs) < 2:
        return {}
    common = set.intersection(*map(set, jobs.values()))
    names = {}
    for run, overrides in jobs.items():
        own = [override for override in dict.fromkeys(overrides) if override not in common]
        if own:
            # The seed comes last: it distinguishes runs of one variant.
            names[run] = " ".join(sorted(own, key=lambda override: override.startswith("seed=")))
    return names


def read_states(sweep: Path) -> list[RunState]:
    """The state of every job in ``sweep.json``, and of every other run in the folder.

    Raises:
        UserError: no such folder, no run, or a damaged ``sweep.json``.
    """
    if not sweep.is_dir():
        raise UserError(f"{sweep}: no such folder; give a sweep's, such as multirun/NAME")
    jobs = [run for command in read_commands(sweep) for run in command["jobs"]]
    runs = dict.fromkeys([*jobs, *find_started_runs(sweep)])
    if not runs:
        raise UserError(f"{sweep}: contains no run; give a sweep's folder, such as multirun/NAME")
    return [read_state(sweep, run) for run in runs]


def find_started_runs(sweep: Path) -> list[str]:
    """The runs below a folder that have a checkpoint, result, failure or process, sorted."""
    runs = []
    for folder, children, files in os.walk(sweep):
        if CHECKPOINTS in children or {RESULT, FAILURE, RUNNING} & set(files):
            runs.append(Path(folder).relative_to(sweep).as_posix())
            children.clear()
        children[:] = [name for name in children if not name.startswith(".")]
    return sorted(runs)


def read_state(sweep: Path, run: str) -> RunState:
    """The state of a run from the files in its folder; failed if its record is damaged."""
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
        return RunState(run, "done", seconds=seconds, resumed=resumed is not None)
    running = read_running(folder)
    if running is not None and is_alive(folder, running):
        return RunState(run, "running", running)
    if (folder / FAILURE).is_file():
        return RunState(run, "failed", reason=failure_reason(folder))
    if running is not None or (folder / CHECKPOINTS / "last.ckpt").is_file():
        return RunState(run, "interrupted", running)
    return RunState(run, "missing")


def failure_reason(folder: Path) -> str:
    """Why a run failed, in one line."""
    try:
        return " ".join(str(read_failure(folder).get("error", "")).split())
    except UserError:
        return f"its {FAILURE} cannot be read"


def count_states(states: Sequence[RunState]) -> dict[State, int]:
    """Number of runs in each of `STATES`."""
    counts = Counter(state.state for state in states)
    return {state: counts[state] for state in STATES}


def seconds_left(states: Sequence[RunState], now: float) -> float | None:
    """Estimated seconds until all runs are done, if the number of parallel runs stays the same.

    Failed runs are not repeated. The estimate for one run is the mean duration of the runs that are
    done or, before the first is done, from the epochs of the current runs. ``now`` is in seconds
    since 1970.

    Returns:
        0 if all are done; None if no run is running, or without any duration or epoch yet.
    """
    unfinished = [s for s in states if s.state in ("running", "interrupted", "missing")]
    running = [s for s in unfinished if s.state == "running"]
    if not unfinished:
        return 0.0
    per_run = _seconds_per_run(states, now)
    if not running or per_run is None:
        return None
    remaining = [1 - _progress(s.running) for s in unfinished]
    slowest = max(1 - _progress(s.running) for s in running)
    return per_run * max(sum(remaining) / len(running), slowest)


def _seconds_per_run(states: Sequence[RunState], now: float) -> float | None:
    seconds = [s.seconds for s in states if s.state == "done" and not s.resumed and s.seconds]
    if not seconds:
        running = [s.running for s in states if s.state == "running" and s.running]
        progress = [(r, _progress(r, r.first_epoch)) for r in running]
        seconds = [(now - r.started) / share for r, share in progress if share]
    return math.fsum(seconds) / len(seconds) if seconds else None


def _progress(running: Running | None, first_epoch: int = 0) -> float:
    """Fraction of a run's epochs that was trained since ``first_epoch``."""
    if running is None or not running.epoch or not running.epochs:
        return 0.0
    return min(1.0, (running.epoch - first_epoch) / running.epochs)
