"""Run ``anomalib-rd`` in a child and kill it with SIGKILL, at a time or while it writes a file."""

import io
import multiprocessing
import os
import pathlib
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TEMPORARY = ".tmp"


@dataclass(frozen=True)
class KillPoint:
    """A position in a file: the process is killed while it writes the file.

    Attributes:
        name: final name of the file.
        nth: which write of the file, from 1.
        byte: number of bytes written before the kill, at most the file's size; the file keeps
            its temporary name.
    """

    name: str
    nth: int
    byte: int


def start(
    arguments: list[str],
    log: Path,
    kill_point: KillPoint | None = None,
    cpu_s: float | None = None,
    write_log: Path | None = None,
) -> int | None:
    """Run the command in a child; it shares the imported modules of this process.

    Args:
        arguments: after ``anomalib-rd``.
        log: its output is appended to this file.
        kill_point: kill it while it writes this file.
        cpu_s: kill it after these seconds of CPU time (independent of other load).
        write_log: append the name of each file that it writes to this file.

    Returns:
        The exit status, -9 if killed.
    """
    # Forked, not a new interpreter: importing torch takes longer than such a run.
    child = multiprocessing.get_context("fork").Process(
        target=_run, args=(arguments, log, kill_point, write_log)
    )
    child.start()
    while cpu_s is not None and child.is_alive():
        if sum(psutil.Process(child.pid).cpu_times()[:2]) >= cpu_s:
            child.kill()
        child.join(0.002)
    child.join()
    return child.exitcode


def _run(
    arguments: list[str], log: Path, kill_point: KillPoint | None, write_log: Path | None
) -> None:
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if kill_point is not None:
        intercept(open_deadly(kill_point))
    if write_log is not None:
        intercept(record_name(write_log))
    from anomalib_rd.cli import main

    sys.argv = ["anomalib-rd", *arguments]
    status = 1
    try:
        status = main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(status)  # without the exit handlers of the parent


class DeadlyFile(io.FileIO):
    """A new file that kills the process after a number of bytes, or when it is closed."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path, "x")
        self.left = size

    def write(self, data: Any) -> int:
        """Write up to the limit."""
        view = memoryview(data).cast("B")
        written: int = super().write(view[: self.left]) or 0
        self.left -= written
        if len(view) > written:
            kill()
        return written

    def close(self) -> None:
        """Kill the process: the file still has its temporary name."""
        if not self.closed:
            kill()


def kill() -> None:
    """Kill this process with SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def open_deadly(kill_point: KillPoint) -> Callable[[Path, str], Any]:
    """Opens the file of the kill point as a `DeadlyFile`."""
    seen: Counter[str] = Counter()

    def opened(path: Path, final: str) -> Any:
        seen[final] += 1
        if (final, seen[final]) != (kill_point.name, kill_point.nth):
            return None
        return io.BufferedWriter(DeadlyFile(path, kill_point.byte))

    return opened


def record_name(write_log: Path) -> Callable[[Path, str], None]:
    """Appends the name of each written file to a file."""

    def opened(_: Path, final: str) -> None:
        with write_log.open("a") as file:
            file.write(f"{final}\n")

    return opened


def intercept(opened: Callable[[Path, str], Any]) -> None:
    """Call ``opened(path, final name)`` for each temporary file; its result replaces the file."""
    plain = pathlib.Path.open

    def open_(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if mode == "xb" and path.name.endswith(TEMPORARY):
            # Only the caller, `write_atomically`, knows the final name.
            file = opened(path, sys._getframe(1).f_locals["path"].name)
            if file is not None:
                return file
        return plain(path, mode, *more, **options)

    pathlib.Path.open = open_  # type: ignore[assignment, method-assign]
