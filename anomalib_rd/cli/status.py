"""``anomalib-rd status``: which runs of a sweep are complete, running, failed or missing."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

from anomalib_rd.cli.common import Parser
from anomalib_rd.reports.formatting import format_count, format_duration

if TYPE_CHECKING:
    from anomalib_rd.results.sweeps import RunState

COLOURS = {
    "done": "green",
    "partial": "yellow",
    "running": "cyan",
    "failed": "red",
    "interrupted": "yellow",
}


def add_arguments(parser: Parser) -> None:
    """Add the options of the command."""
    parser.describe(
        "Show the state of each run of a sweep and the estimated time left. States: done, partial "
        "(the trainer's limits cut it short), running, failed, interrupted (the same command "
        "resumes it), missing. Exit status 1 if a run failed.",
        "multirun/mine",
        "multirun/mine --json",
    )
    parser.add_argument("folder", type=Path, help="folder of the sweep, such as multirun/NAME")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """Print the state of every run of a sweep; returns 1 if one failed, else 0."""
    from anomalib_rd.results.sweeps import count_states, job_names, read_states, seconds_left

    states, now = read_states(options.folder), time.time()
    names = job_names(options.folder)
    totals, left = count_states(states), seconds_left(states, now)
    if options.json:
        runs = [asdict(state) | {"name": names.get(state.run)} for state in states]
        print(json.dumps({"totals": totals, "seconds_left": left, "runs": runs}, indent=2))
        return 1 if totals["failed"] else 0
    _print_states(states, names, now)
    parts = [f"{number} {state}" for state, number in totals.items() if number]
    line = f"{format_count(len(states), 'run')}: {', '.join(parts)}"
    if left is not None:
        line += f"; about {format_duration(left)} left" if left else "; nothing left to run"
    print(line)
    if warning := oversubscription_warning(states):
        print(warning)
    return 1 if totals["failed"] else 0


def _print_states(states: "Sequence[RunState]", names: Mapping[str, str], now: float) -> None:
    """Print a table of the runs.

    Args:
        states: of `read_states`.
        names: of `job_names`; a run without one is listed by its folder.
        now: seconds since the epoch.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "state", "", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for state in states:
        parts = [_details(state, now)]
        if state.run in names and state.state in ("failed", "interrupted", "running"):
            parts.append(f"in {state.run}")
        table.add_row(
            Text(names.get(state.run, state.run)),
            Text(state.state, style=COLOURS.get(state.state, "")),
            Text(", ".join(filter(None, parts))),
        )
    # In files and pipes rich assumes 80 columns, too few for folder names.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _details(state: "RunState", now: float) -> str:
    if state.state == "done":
        return "" if state.seconds is None else f"in {format_duration(state.seconds)}"
    if state.state in ("failed", "partial"):
        return state.reason or ""
    running = state.running
    if running is None:
        return ""
    parts = []
    if running.epoch is not None:
        parts.append(f"epoch {running.epoch}" + (f" of {running.epochs}" if running.epochs else ""))
    if state.state == "running":
        started = datetime.fromtimestamp(running.started).strftime("%Y-%m-%d %H:%M")
        parts.append(f"since {started} ({format_duration(now - running.started)})")
        parts.append(f"on {running.host}, process {running.pid}")
    return ", ".join(parts)


def oversubscription_warning(states: "Sequence[RunState]") -> str | None:
    """A warning if runs on this machine have more threads than cores and use all cores."""
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
    threads = sum(cores.thread_count(pid) or 0 for pid in running)
    if threads <= usable or cores.cores_used(running) < 0.9 * usable:
        return None
    share = max(1, usable // len(running))
    return (
        f"{len(running)} runs with {threads} threads share {usable} CPU cores and slow each other "
        f"down; run one at a time, or set {cores.THREADS}={share} for each"
    )
