"""``anomalib-rd`` in a child that ends by SIGKILL, at a moment or in the middle of a file."""

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
class Place:
    """In the middle of writing a file: where a process is killed.

    Attributes:
        name: of the file, its last one.
        nth: time that it is written, from 1.
        byte: so many of its bytes are written, or all if it has fewer; it is not renamed.
    """

    name: str
    nth: int
    byte: int


def start(
    words: list[str],
    log: Path,
    place: Place | None = None,
    cpu_s: float | None = None,
    notes: Path | None = None,
) -> int | None:
    """Run the command in a child; it shares what this process has imported.

    Args:
        words: after ``anomalib-rd``.
        log: what it says is added to this file.
        place: where it is killed; None: nowhere.
        cpu_s: seconds of CPU time after which it is killed, so that it is as far whatever else
            the machine does; None: never.
        notes: a file for the name of each file that it writes.

    Returns:
        The exit status, -9 if it was killed.
    """
    # Not by the command line's interpreter: to import torch takes longer than such a run.
    child = multiprocessing.get_context("fork").Process(
        target=work, args=(words, log, place, notes)
    )
    child.start()
    while cpu_s is not None and child.is_alive():
        if sum(psutil.Process(child.pid).cpu_times()[:2]) >= cpu_s:
            child.kill()
        child.join(0.002)
    child.join()
    return child.exitcode


def work(words: list[str], log: Path, place: Place | None, notes: Path | None) -> None:
    """What the child does."""
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if place is not None:
        intercept(deadly(place))
    if notes is not None:
        intercept(noted(notes))
    from anomalib_rd.cli import main

    sys.argv = ["anomalib-rd", *words]
    status = 1
    try:
        status = main(words)
    finally:
        sys.stdout.flush()
        os._exit(status)  # what the parent has to do at its end is not this process's business


class Deadly(io.FileIO):
    """A new file that kills the process when so many bytes are in it; fewer, when it is closed."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path, "x")
        self.left = at

    def write(self, data: Any) -> int:
        """Write as much as may be written."""
        view = memoryview(data).cast("B")
        written: int = super().write(view[: self.left]) or 0
        self.left -= written
        if len(view) > written:
            kill()
        return written

    def close(self) -> None:
        """Written, and still under its temporary name."""
        if not self.closed:
            kill()


def kill() -> None:
    """What no program can catch."""
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(place: Place) -> Callable[[Path, str], Any]:
    """Opens the file at the place so that writing it is this process's last act."""
    seen: Counter[str] = Counter()

    def opened(path: Path, final: str) -> Any:
        seen[final] += 1
        if (final, seen[final]) != (place.name, place.nth):
            return None
        return io.BufferedWriter(Deadly(path, place.byte))

    return opened


def noted(notes: Path) -> Callable[[Path, str], None]:
    """Writes down the name of each file that is written."""

    def opened(_: Path, final: str) -> None:
        with notes.open("a") as file:
            file.write(f"{final}\n")

    return opened


def intercept(opened: Callable[[Path, str], Any]) -> None:
    """Call ``opened(path, final name)`` for each temporary file; what it gives is the file."""
    plain = pathlib.Path.open

    def open_(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if mode == "xb" and path.name.endswith(TEMPORARY):
            # Its name does not say what it will be: `write_atomically`, which calls this, knows.
            file = opened(path, sys._getframe(1).f_locals["path"].name)
            if file is not None:
                return file
        return plain(path, mode, *more, **options)

    pathlib.Path.open = open_  # type: ignore[assignment, method-assign]
