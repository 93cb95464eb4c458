"""The report pages: built when asked for, and anew when runs have finished since."""

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from anomalib_rd.errors import UserError
from anomalib_rd.reports.dashboard import PAGE
from anomalib_rd.reports.server.found import Found
from anomalib_rd.results.files import one_line
from anomalib_rd.results.record import FAILURE, RESULT
from anomalib_rd.results.sweeps import find_started_runs

Build = Callable[[Sequence[Path], Path], Path]
Ended = tuple[tuple[str, int], ...]


class Pages:
    """Keeps ``report.html`` of each sweep up to date.

    Args:
        top: the served folder; nothing outside it is opened.
        build: writes the page of the runs in or under folders: (folders, file) -> file.
    """

    def __init__(self, top: Path, build: Build) -> None:
        self._top, self._build = top.resolve(), build
        self._built: dict[Path, Ended] = {}
        # One at a time: to build keeps a core busy, and two who ask for one page share it.
        self._lock = threading.Lock()

    def open(self, found: Found) -> BinaryIO:
        """The page, built anew if it is older than what it speaks of.

        Raises:
            UserError: no complete run, a file that cannot be read, or the page not written.
        """
        page = found.folder / PAGE
        if not page.parent.resolve().is_relative_to(self._top):
            raise UserError(f"{page.parent}: lies outside {self._top}")
        with self._lock:
            ended = _ended(found)
            if self._is_stale(page, ended):
                self._write(found, page)
                self._built[page] = ended
            try:
                # Not through a link that someone put there since.
                return os.fdopen(os.open(page, os.O_RDONLY | os.O_NOFOLLOW), "rb")
            except OSError as error:
                raise UserError(f"{page}: cannot be read ({one_line(error)})") from error

    def _is_stale(self, page: Path, ended: Ended) -> bool:
        try:
            there = page.lstat()
        except FileNotFoundError:
            return True
        if not stat.S_ISREG(there.st_mode):
            return True
        if page in self._built:
            return self._built[page] != ended
        return any(when >= there.st_mtime_ns for _, when in ended)

    def _write(self, found: Found, page: Path) -> None:
        folders = [found.folder]
        if found.runs is not None:
            folders = [found.folder / r for r in found.runs if (found.folder / r / RESULT).exists()]
        if not folders:
            raise UserError(f"{found.folder}: no run is complete yet")
        begun = time.time_ns()
        try:
            self._build(folders, page)
            # A run that finished meanwhile may lack: as old as what the page was made from.
            os.utime(page, ns=(begun, begun))
        except OSError as error:
            raise UserError(f"{page}: cannot be written ({one_line(error)})") from error


def _ended(found: Found) -> Ended:
    """Each run that is over, and when it was."""
    runs = find_started_runs(found.folder) if found.runs is None else found.runs
    ended = []
    for run in runs:
        for name in (RESULT, FAILURE):
            try:
                ended.append((f"{run}/{name}", (found.folder / run / name).stat().st_mtime_ns))
            except OSError:
                continue
    return tuple(ended)
