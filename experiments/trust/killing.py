"""Run ``anomalib-rd`` in a child process and kill it, at a time or while it writes a file."""

import io
import multiprocessing
import os
import pathlib
import signal
import sys
from collections import Counter
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
        byte: number of bytes written before the kill, at most the file's size.
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
    """Run the command in a child process; returns its exit status, -9 if killed.

    Args:
        arguments: after ``anomalib-rd``.
        log: file to append its output to.
        kill_point: kill it while it writes this file.
        cpu_s: kill it after these seconds of CPU time (independent of other load).
        write_log: file to append the name of each file that it writes to.
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
    intercept_writes(kill_point, write_log)
    from anomalib_rd.cli import main

    sys.argv = ["anomalib-rd", *arguments]
    status = 1
    try:
        status = main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(status)  # without the exit handlers of the parent


class KillingFile(io.FileIO):
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
        """Kill the process, before the file is renamed."""
        if not self.closed:
            kill()


def kill() -> None:
    """Kill this process with SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def intercept_writes(kill_point: KillPoint | None, write_log: Path | None) -> None:
    """Open the file of the kill point as a `KillingFile`; log the name of each written file."""
    original_open = pathlib.Path.open
    writes: Counter[str] = Counter()

    def open_(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if mode == "xb" and path.name.endswith(TEMPORARY):
            # Only the caller, `write_atomically`, knows the final name.
            name = sys._getframe(1).f_locals["path"].name
            writes[name] += 1
            if write_log is not None:
                with original_open(write_log, "a") as file:
                    file.write(f"{name}\n")
            if kill_point and (name, writes[name]) == (kill_point.name, kill_point.nth):
                return io.BufferedWriter(KillingFile(path, kill_point.byte))
        return original_open(path, mode, *more, **options)

    pathlib.Path.open = open_  # type: ignore[assignment, method-assign]
