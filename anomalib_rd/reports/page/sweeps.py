"""The commands that made the runs, and the runs that are not complete."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_failure
from anomalib_rd.results.sweeps import (
    CHECKPOINTS,
    SWEEP,
    RunState,
    count_states,
    find_started_runs,
    read_commands,
    read_state,
    read_states,
)


@dataclass(frozen=True)
class Unfinished:
    """A run without a result: its state, what was asked of it, and why it failed."""

    folder: str
    state: str
    overrides: str
    reason: str
    traceback: str


@dataclass(frozen=True)
class Sweep:
    """A sweep, or a folder with runs that belong to none."""

    folder: str
    commands: list[dict[str, str]]
    counts: dict[str, int]
    unfinished: list[Unfinished]


def find_sweeps(folders: Sequence[Path]) -> list[Sweep]:
    """The sweeps in or under the folders, then the runs beside them.

    Raises:
        UserError: a folder does not exist, or a file is damaged.
    """
    places = {p.resolve(): p for folder in folders for p in _with_commands(Path(folder))}
    found = [_sweep(place, read_states(place)) for place in places.values()]
    taken = set(places)
    for folder in map(Path, folders):
        loose = [run for run in find_started_runs(folder) if not _inside(folder / run, taken)]
        if loose:
            found.append(_sweep(folder, [read_state(folder, run) for run in loose]))
            taken.add(folder.resolve())
    return found


def _sweep(folder: Path, states: Sequence[RunState]) -> Sweep:
    commands = read_commands(folder)
    asked = {run: words for command in commands for run, words in command["jobs"].items()}
    return Sweep(
        folder=str(folder),
        commands=[{"text": c["command"], "started": _when(c.get("started"))} for c in commands],
        counts={state: n for state, n in count_states(states).items() if n},
        unfinished=[
            _unfinished(folder, state, asked.get(state.run, []))
            for state in states
            if state.state != "done"
        ],
    )


def _unfinished(folder: Path, state: RunState, overrides: Sequence[str]) -> Unfinished:
    failed = state.state == "failed"
    return Unfinished(
        folder=state.run,
        state=state.state,
        overrides=" ".join(overrides),
        reason=(state.reason or "no message on record") if failed else _progress(state),
        traceback=_traceback(folder / state.run) if failed else "",
    )


def _progress(state: RunState) -> str:
    running = state.running
    if running is None:
        return "not begun" if state.state == "missing" else ""
    return f"epoch {running.epoch or 0} of {running.epochs or '?'} on {running.host}"


def _traceback(folder: Path) -> str:
    try:
        return str(read_failure(folder).get("traceback", ""))
    except UserError:
        return ""


def _when(started: Any) -> str:
    if not isinstance(started, int | float):
        return ""
    return datetime.fromtimestamp(started).strftime("%Y-%m-%d %H:%M")


def _with_commands(top: Path) -> Iterator[Path]:
    for folder, children, files in os.walk(top):
        if SWEEP in files:
            yield Path(folder)
        if CHECKPOINTS in children:
            children.clear()
        children[:] = sorted(name for name in children if not name.startswith("."))


def _inside(run: Path, places: set[Path]) -> bool:
    return any(place in (run.resolve(), *run.resolve().parents) for place in places)
