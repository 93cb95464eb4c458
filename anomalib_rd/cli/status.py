"""``anomalib-rd status``: what a sweep has done, is doing and lacks."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

from anomalib_rd.cli.common import Parser

if TYPE_CHECKING:
    from anomalib_rd.results.sweeps import RunState

COLOURS = {
    "done": "green",
    "partial": "yellow",
    "running": "cyan",
    "failed": "red",
    "interrupted": "yellow",
}


def run(words: list[str]) -> int:
    """Print the state of every run of a sweep; 1 if one failed, else 0."""
    parser = Parser(
        prog="anomalib-rd status",
        description="The runs of a sweep: done, partial (cut short by limits of the trainer), "
        "running, failed, interrupted (the same command resumes them) or missing, and the time "
        "left.",
    )
    parser.add_argument("folder", type=Path, help="the sweep's, such as multirun/NAME")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    options = parser.parse_args(words)
    from anomalib_rd.results.sweeps import count_states, job_names, read_states, seconds_left

    states, now = read_states(options.folder), time.time()
    names = job_names(options.folder)
    totals, left = count_states(states), seconds_left(states, now)
    if options.json:
        runs = [asdict(state) | {"name": names.get(state.run)} for state in states]
        print(json.dumps({"totals": totals, "seconds_left": left, "runs": runs}, indent=2))
    else:
        print_states(states, names, now)
        shown = [f"{number} {state}" for state, number in totals.items() if number]
        print(f"{len(states)} runs: {', '.join(shown)}{time_left(left)}")
        if crowded := crowding(states):
            print(crowded)
    return 1 if totals["failed"] else 0


def print_states(states: "Sequence[RunState]", names: Mapping[str, str], now: float) -> None:
    """Print the table, as wide as its lines.

    Args:
        states: of `read_states`.
        names: of `job_names`: what runs are called; the others by their folders.
        now: seconds since the epoch.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", ""):
        table.add_column(heading, overflow="fold")
    for state in states:
        coloured = Text(state.state, style=COLOURS.get(state.state, ""))
        known = [details(state, now)]
        if state.run in names and state.state in ("failed", "interrupted", "running"):
            known.append(f"in {state.run}")
        name = Text(names.get(state.run, state.run))
        table.add_row(name, coloured, Text(", ".join(filter(None, known))))
    # Into a file or pipe rich would assume 80 columns, too few for the folders' names.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def details(state: "RunState", now: float) -> str:
    """What else is known of a run."""
    if state.state == "done":
        return "" if state.seconds is None else f"in {duration(state.seconds)}"
    if state.state in ("failed", "partial"):
        return state.reason or ""
    if state.running is None:
        return ""
    running = state.running
    epochs = f"of {running.epochs}" if running.epochs else ""
    words = [] if running.epoch is None else [f"epoch {running.epoch} {epochs}".rstrip()]
    if state.state == "running":
        started = datetime.fromtimestamp(running.started).strftime("%Y-%m-%d %H:%M")
        words.append(f"since {started} ({duration(now - running.started)})")
        words.append(f"on {running.host}, process {running.pid}")
    return ", ".join(words)


def crowding(states: "Sequence[RunState]") -> str | None:
    """A line if runs of this machine have more threads than cores, and use all of these."""
    pids = {
        state.running.pid
        for state in states
        if state.state == "running" and state.running and state.running.host == gethostname()
    }
    running = [pid for pid in pids if pid is not None]
    if len(running) < 2:
        return None
    from anomalib_rd import cores

    usable = cores.usable_cores()
    threads = sum(cores.threads_of(pid) or 0 for pid in running)
    if threads <= usable or cores.used_by(running) < 0.9 * usable:
        return None
    share = max(1, usable // len(running))
    return (
        f"{len(running)} runs share {usable} CPU cores with {threads} threads and slow each other "
        f"down: run one at a time, or set {cores.THREADS}={share} for each"
    )


def time_left(seconds: float | None) -> str:
    """How the line of totals ends."""
    if seconds is None:
        return ""
    return f"; about {duration(seconds)} left" if seconds else "; nothing left to run"


def duration(seconds: float) -> str:
    """Such as ``2 h 05 min``, ``3 min 10 s``, ``40 s``."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes_rest = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_rest:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
