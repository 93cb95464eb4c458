"""The runs of a sweep: which there should be, in which state each is, and how long they take.

``<sweep>/sweep.json`` is written when a multirun starts: ``commands``, a list of ``command,
started`` (seconds since the epoch) and ``jobs`` (``{run's folder below the sweep's: overrides}``).
The same command again takes its own place; several commands add up.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import locked, read_json, write_json
from anomalib_rd.results.progress import RUNNING, Running, is_alive, read_running
from anomalib_rd.results.record import FAILURE, RESULT, limits_of, read_failure, read_record

SWEEP, LOCK = "sweep.json", ".sweep.lock"
CHECKPOINTS = "checkpoints"
State = Literal["done", "partial", "running", "failed", "cut off", "missing"]
STATES: tuple[State, ...] = ("done", "partial", "running", "failed", "cut off", "missing")


@dataclass(frozen=True)
class RunState:
    """One run of a sweep.

    Attributes:
        run: its folder below the sweep's.
        state: ``partial`` is over, but was cut short by Lightning's limits; ``cut off`` has begun
            and is left; ``missing`` has not begun.
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
    with locked(sweep / LOCK):
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


def sweep_states(sweep: Path) -> list[RunState]:
    """Every run that was asked for, and every other one found in the sweep's folder.

    Raises:
        UserError: no such folder, no run in it or asked for, or a damaged list of its jobs.
    """
    if not sweep.is_dir():
        raise UserError(f"{sweep}: no such folder; give a sweep's, such as multirun/NAME")
    wanted = [run for command in read_commands(sweep) for run in command["jobs"]]
    runs = dict.fromkeys([*wanted, *begun_runs(sweep)])
    if not runs:
        raise UserError(f"{sweep}: holds no run; give a sweep's folder, such as multirun/NAME")
    return [run_state(sweep, run) for run in runs]


def begun_runs(sweep: Path) -> list[str]:
    """The runs below a folder that have left something to go on with, sorted."""
    found = []
    for folder, children, files in os.walk(sweep):
        if CHECKPOINTS in children or {RESULT, FAILURE, RUNNING} & set(files):
            found.append(Path(folder).relative_to(sweep).as_posix())
            children.clear()
        children[:] = [name for name in children if not name.startswith(".")]
    return sorted(found)


def run_state(sweep: Path, run: str) -> RunState:
    """In which state a run is, by what its folder holds; failed if its record is damaged."""
    folder = sweep / run
    if (folder / RESULT).is_file():
        try:
            record = read_record(folder)
        except UserError as error:
            return RunState(run, "failed", reason=str(error))
        if limits := limits_of(record):
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
        return RunState(run, "cut off", running)
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


def counts(states: Sequence[RunState]) -> dict[State, int]:
    """How many runs are in each state; all states are there."""
    found = Counter(state.state for state in states)
    return {state: found[state] for state in STATES}


def seconds_left(states: Sequence[RunState], now: float) -> float | None:
    """Seconds until all but the failed runs are done, if as many run at a time as now do.

    A run takes the mean of those done; before one is, what those running make of their epochs.

    Args:
        states: of `sweep_states`.
        now: seconds since the epoch.

    Returns:
        0 if nothing is left; None if nothing runs, or nothing is known yet.
    """
    open_runs = [s for s in states if s.state in ("running", "cut off", "missing")]
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
