"""The commands that started the runs, and the runs that are not complete."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from anomalib_rd.errors import UserError
from anomalib_rd.reports.formatting import NO_REASON
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
class IncompleteRun:
    """A run without a result: its overrides, progress or reason of failure, and traceback."""

    folder: str
    state: str
    overrides: str
    reason: str
    traceback: str


@dataclass(frozen=True)
class Sweep:
    """A sweep, or a folder with runs outside any sweep.

    ``commands`` have ``text`` and ``started``; ``counts`` is state -> number of runs.
    """

    folder: str
    commands: list[dict[str, str]]
    counts: dict[str, int]
    incomplete: list[IncompleteRun]


def find_sweeps(folders: Sequence[Path]) -> list[Sweep]:
    """The sweeps in or under the folders, then the folders with runs outside of them.

    Raises:
        UserError: a folder does not exist, or a file is damaged.
    """
    tops = {path.resolve(): path for folder in folders for path in _sweep_folders(Path(folder))}
    sweeps = [_read_sweep(path, read_states(path)) for path in tops.values()]
    covered = set(tops)
    for folder in map(Path, folders):
        single = [
            run
            for run in find_started_runs(folder)
            if not covered & {(path := (folder / run).resolve()), *path.parents}
        ]
        if single:
            sweeps.append(_read_sweep(folder, [read_state(folder, run) for run in single]))
            covered.add(folder.resolve())
    return sweeps


def _sweep_folders(top: Path) -> Iterator[Path]:
    for folder, children, files in os.walk(top):
        if SWEEP in files:
            yield Path(folder)
        if CHECKPOINTS in children:
            children.clear()
        children[:] = sorted(name for name in children if not name.startswith("."))


def _read_sweep(folder: Path, states: Sequence[RunState]) -> Sweep:
    commands = read_commands(folder)
    overrides = {run: words for command in commands for run, words in command["jobs"].items()}
    return Sweep(
        folder=str(folder),
        commands=[
            {"text": c["command"], "started": _format_time(c.get("started"))} for c in commands
        ],
        counts={state: number for state, number in count_states(states).items() if number},
        incomplete=[
            IncompleteRun(
                folder=state.run,
                state=state.state,
                overrides=" ".join(overrides.get(state.run, [])),
                reason=_describe(state),
                traceback=_read_traceback(folder / state.run) if state.state == "failed" else "",
            )
            for state in states
            if state.state != "done"
        ],
    )


def _describe(state: RunState) -> str:
    if state.state == "failed":
        return state.reason or NO_REASON
    if state.running is None:
        return "not started" if state.state == "missing" else ""
    running = state.running
    return f"epoch {running.epoch or 0} of {running.epochs or '?'} on {running.host}"


def _read_traceback(folder: Path) -> str:
    try:
        return str(read_failure(folder).get("traceback", ""))
    except UserError:
        return ""


def _format_time(started: object) -> str:
    if not isinstance(started, int | float):
        return ""
    return datetime.fromtimestamp(started).strftime("%Y-%m-%d %H:%M")
