"""What a folder holds: its sweeps and other runs, and how far each is."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anomalib_rd.errors import UserError
from anomalib_rd.reports.dashboard import PAGE
from anomalib_rd.reports.formatting import format_time_left
from anomalib_rd.results.files import one_line
from anomalib_rd.results.record import FAILURE, RESULT
from anomalib_rd.results.sweeps import (
    CHECKPOINTS,
    RUNNING,
    SWEEP,
    RunState,
    count_states,
    read_state,
    read_states,
    seconds_left,
)

FRESH = 1.0  # seconds
RARELY = 10  # times as long as a look takes
LISTED = 100  # runs


@dataclass(frozen=True)
class Found:
    """A sweep, or all the runs that belong to none.

    Attributes:
        folder: the sweep's; of the other runs the one that was searched.
        place: the same below the searched one; ``.`` is that itself.
        runs: their folders below ``folder``; None for a sweep, which knows its own.
    """

    folder: Path
    place: str
    runs: tuple[str, ...] | None = None

    @property
    def url(self) -> str:
        """The path of its report."""
        place = "" if self.place == "." else f"{quote(self.place, errors='surrogateescape')}/"
        return f"/{place}{PAGE}"

    def states(self) -> list[RunState]:
        """Its runs.

        Raises:
            UserError: a damaged file.
        """
        if self.runs is None:
            return read_states(self.folder)
        return [read_state(self.folder, run) for run in self.runs]


def find(top: Path) -> list[Found]:
    """The sweeps in or under a folder, then the other runs together; links are not followed."""
    sweeps, others = [], []
    for folder, children, files in os.walk(top):
        place = Path(folder).relative_to(top).as_posix()
        is_run = CHECKPOINTS in children or {RESULT, FAILURE, RUNNING} & set(files)
        if SWEEP in files:
            sweeps.append(Found(Path(folder), place))
        elif is_run:
            others.append(place)
        if SWEEP in files or is_run:
            children.clear()
        children[:] = sorted(name for name in children if not name.startswith("."))
    return sweeps + ([Found(top, ".", tuple(others))] if others else [])


class Overview:
    """How far all is; looked up anew when a second is over, however many ask.

    In a large folder on a slow disk a look takes long: no more than a tenth of the time.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self._lock = threading.Lock()
        self._until = 0.0
        self._seen: tuple[list[Found], list[dict[str, Any]]] = ([], [])

    def look(self) -> tuple[list[Found], list[dict[str, Any]]]:
        """What is there, and of each what `progress` says; what runs comes first."""
        with self._lock:
            start = time.monotonic()
            if start >= self._until:
                now = time.time()
                pairs = [(found, progress(found, now)) for found in find(self.top)]
                pairs.sort(key=lambda pair: not pair[1]["running"])
                self._seen = [f for f, _ in pairs], [p for _, p in pairs]
                end = time.monotonic()
                self._until = end + max(FRESH, RARELY * (end - start))
            return self._seen


def progress(found: Found, now: float) -> dict[str, Any]:
    """In JSON's types: ``name, url`` (null without a complete run)``, total, counts, left`` (in
    words or null)``, running, failed`` and ``error`` (null, or why the rest is not known)."""
    about: dict[str, Any] = {"name": _name(found), "url": None, "total": 0, "counts": {}}
    about |= {"left": None, "running": [], "failed": [], "error": None}
    try:
        states = found.states()
    except (UserError, OSError) as error:
        return about | {"error": one_line(error)}
    totals, left = count_states(states), seconds_left(states, now)
    return about | {
        "url": found.url if totals["done"] else None,
        "total": len(states),
        "counts": {state: number for state, number in totals.items() if number},
        "left": None if not left else format_time_left(left),
        "running": [_running(state) for state in _listed(states, "running")],
        "failed": [
            {"run": state.run, "reason": state.reason or "no message on record"}
            for state in _listed(states, "failed")
        ],
    }


def _name(found: Found) -> str:
    own = found.folder.resolve().name if found.place == "." else found.place
    return f"{own}: runs of no sweep" if found.runs is not None else own


def _listed(states: Sequence[RunState], which: str) -> list[RunState]:
    return [state for state in states if state.state == which][:LISTED]


def _running(state: RunState) -> dict[str, Any]:
    assert state.running is not None
    now = state.running
    since = datetime.fromtimestamp(now.started).strftime("%Y-%m-%d %H:%M")
    about = {"epoch": now.epoch, "epochs": now.epochs, "host": now.host, "since": since}
    return {"run": state.run} | about
