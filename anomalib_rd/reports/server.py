"""The dashboard: an index of a folder's sweeps, their progress as JSON, and their report pages."""

import hashlib
import ipaddress
import json
import os
import shutil
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from socketserver import TCPServer
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from anomalib_rd.errors import UserError
from anomalib_rd.reports.formatting import NO_REASON, format_time_left
from anomalib_rd.reports.page import PAGE
from anomalib_rd.reports.page.html import TEMPLATES, make_environment
from anomalib_rd.results.files import one_line
from anomalib_rd.results.record import FAILURE, RESULT
from anomalib_rd.results.sweeps import (
    CHECKPOINTS,
    RUNNING,
    SWEEP,
    RunState,
    count_states,
    find_started_runs,
    read_state,
    read_states,
    seconds_left,
)

SHORTEST_INTERVAL = 1.0  # seconds between two scans of the folder
LONGEST_SHARE = 10  # the interval is at least this many times as long as a scan
LISTED = 100  # runs
FILES = {"/style.css": "text/css", "/index.js": "text/javascript"}
JSON, HTML = "application/json", "text/html; charset=utf-8"
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
INDEX_POLICY = _POLICY + ("script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:")
# A report page contains its scripts, styles and images, and loads nothing.
REPORT_POLICY = _POLICY + (
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
Build = Callable[[Sequence[Path], Path], Path]


@dataclass(frozen=True)
class RunGroup:
    """A sweep, or all runs outside of sweeps.

    Attributes:
        folder: of the sweep; for other runs, the served folder.
        path: the same relative to the served folder.
        runs: folders relative to ``folder``; None for a sweep, which lists its own.
    """

    folder: Path
    path: str
    runs: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """What the index calls it."""
        own = self.folder.resolve().name if self.path == "." else self.path
        return own if self.runs is None else f"{own}: runs outside of sweeps"

    @property
    def url(self) -> str:
        """Path of its report page."""
        path = "" if self.path == "." else f"{quote(self.path, errors='surrogateescape')}/"
        return f"/{path}{PAGE}"

    def states(self) -> list[RunState]:
        """The states of its runs.

        Raises:
            UserError: a damaged file.
        """
        if self.runs is None:
            return read_states(self.folder)
        return [read_state(self.folder, run) for run in self.runs]


def find_run_groups(top: Path) -> list[RunGroup]:
    """The sweeps in or under a folder, then the runs outside of them; follows no links."""
    sweeps, runs = [], []
    for folder, children, files in os.walk(top):
        path = Path(folder).relative_to(top).as_posix()
        is_run = CHECKPOINTS in children or {RESULT, FAILURE, RUNNING} & set(files)
        if SWEEP in files:
            sweeps.append(RunGroup(Path(folder), path))
        elif is_run:
            runs.append(path)
        if SWEEP in files or is_run:
            children.clear()
        children[:] = sorted(name for name in children if not name.startswith("."))
    return sweeps + ([RunGroup(top, ".", tuple(runs))] if runs else [])


def describe_progress(group: RunGroup, now: float) -> dict[str, Any]:
    """In JSON types: ``name, url`` (null without a complete run), ``total, counts, left`` (text or
    null), ``running, failed`` and ``error`` (null, or why the rest is unknown)."""
    progress: dict[str, Any] = {"name": group.name, "url": None, "total": 0, "counts": {}}
    progress |= {"left": None, "running": [], "failed": [], "error": None}
    try:
        states = group.states()
    except (UserError, OSError) as error:
        return progress | {"error": one_line(error)}
    totals, left = count_states(states), seconds_left(states, now)
    failed = [state for state in states if state.state == "failed"][:LISTED]
    return progress | {
        "url": group.url if totals["done"] else None,
        "total": len(states),
        "counts": {state: number for state, number in totals.items() if number},
        "left": format_time_left(left) if left else None,
        "running": [_describe_running(s) for s in states if s.state == "running"][:LISTED],
        "failed": [{"run": s.run, "reason": s.reason or NO_REASON} for s in failed],
    }


def _describe_running(state: RunState) -> dict[str, Any]:
    assert state.running is not None
    running = state.running
    since = datetime.fromtimestamp(running.started).strftime("%Y-%m-%d %H:%M")
    progress = {"epoch": running.epoch, "epochs": running.epochs}
    return {"run": state.run, "host": running.host, "since": since, **progress}


class ProgressCache:
    """The progress of a folder's run groups, scanned at most once per second.

    Scanning a large folder on a slow disk takes at most a tenth of the time.
    """

    def __init__(self, top: Path) -> None:
        self._top = top
        self._lock = threading.Lock()
        self._expires = 0.0
        self._scanned: list[tuple[RunGroup, dict[str, Any]]] = []

    def scan(self) -> list[tuple[RunGroup, dict[str, Any]]]:
        """Groups with `describe_progress` of each; those with running runs come first."""
        with self._lock:
            start = time.monotonic()
            if start >= self._expires:
                now = time.time()
                pairs = [(g, describe_progress(g, now)) for g in find_run_groups(self._top)]
                self._scanned = sorted(pairs, key=lambda pair: not pair[1]["running"])
                end = time.monotonic()
                self._expires = end + max(SHORTEST_INTERVAL, LONGEST_SHARE * (end - start))
            return self._scanned


class PageCache:
    """Report pages, built when requested and again when runs have finished since.

    Args:
        top: the served folder; nothing outside it is opened.
        build: writes the page of the runs in or under folders: (folders, file) -> file.
    """

    def __init__(self, top: Path, build: Build) -> None:
        self._top, self._build = top.resolve(), build
        self._built: dict[Path, dict[str, int]] = {}
        # One at a time: a build keeps a core busy, and two requests share it.
        self._lock = threading.Lock()

    def open(self, group: RunGroup) -> BinaryIO:
        """Open the page, built again if it is outdated.

        Raises:
            UserError: no complete run, an unreadable file, or a page that cannot be written.
        """
        page = group.folder / PAGE
        if not page.parent.resolve().is_relative_to(self._top):
            raise UserError(f"{page.parent}: outside of {self._top}")
        with self._lock:
            finished = _finished_runs(group)
            if self._is_outdated(page, finished):
                self._write(group, page)
                self._built[page] = finished
            try:
                # O_NOFOLLOW: someone may have put a link there since.
                return os.fdopen(os.open(page, os.O_RDONLY | os.O_NOFOLLOW), "rb")
            except OSError as error:
                raise UserError(f"{page}: cannot be read ({one_line(error)})") from error

    def _is_outdated(self, page: Path, finished: Mapping[str, int]) -> bool:
        try:
            status = page.lstat()
        except FileNotFoundError:
            return True
        if page in self._built and stat.S_ISREG(status.st_mode):
            return self._built[page] != finished
        newest = max(finished.values(), default=-1)
        return not stat.S_ISREG(status.st_mode) or newest >= status.st_mtime_ns

    def _write(self, group: RunGroup, page: Path) -> None:
        folders = [group.folder]
        if group.runs is not None:
            runs = [group.folder / run for run in group.runs]
            folders = [run for run in runs if (run / RESULT).exists()]
        if not folders:
            raise UserError(f"{group.folder}: no run is complete yet")
        begun = time.time_ns()
        try:
            self._build(folders, page)
            # Runs that finished during the build may be missing: it is as old as its input.
            os.utime(page, ns=(begun, begun))
        except OSError as error:
            raise UserError(f"{page}: cannot be written ({one_line(error)})") from error


def _finished_runs(group: RunGroup) -> dict[str, int]:
    """Result and failure files -> their modification times."""
    times = {}
    for run in find_started_runs(group.folder) if group.runs is None else group.runs:
        for name in (RESULT, FAILURE):
            try:
                times[f"{run}/{name}"] = (group.folder / run / name).stat().st_mtime_ns
            except OSError:
                continue
    return times


class DashboardServer(ThreadingHTTPServer):
    """Serves the reports of one folder, and nothing else of it.

    Args:
        folder: with sweeps, a sweep, or runs.
        build: writes a report page, see `PageCache`.
        host: a name or address of this machine.
        port: 0 takes any free one.

    Attributes:
        url: of the index.

    Raises:
        UserError: no such folder, or the address cannot be used.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, folder: Path, build: Build, host: str = "127.0.0.1", port: int = 8000
    ) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give a sweep, or a folder with sweeps")
        self.folder = folder
        self.progress, self.pages = ProgressCache(folder), PageCache(folder, build)
        self.names = {"localhost", host.casefold(), socket.gethostname().casefold()} - {""}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise UserError(
                f"cannot listen on {host} port {port} ({reason}); choose another --port, "
                "0 takes any free one"
            ) from error
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Without the slow and unused name look-up of ``HTTPServer``."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A closed browser is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for known paths."""

    server: DashboardServer
    server_version, sys_version = "anomalib-rd", ""
    timeout = 30  # seconds to wait for a request

    def do_GET(self) -> None:
        """Answer, with an error page if anything goes wrong."""
        try:
            self._route(unquote(self.path.partition("?")[0], errors="surrogateescape"))
        except UserError as error:
            self._send_message(HTTPStatus.NOT_FOUND, str(error))
        except ConnectionError:
            raise
        except Exception:
            traceback.print_exc()
            self._send_message(HTTPStatus.INTERNAL_SERVER_ERROR, "See the server's terminal.")

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Unreadable requests and other methods get the same headers as all."""
        del explain
        if code == HTTPStatus.NOT_IMPLEMENTED:
            allowed = {"Allow": "GET, HEAD"}
            self._send_message(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.", allowed)
        else:
            self._send_message(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Only errors are printed."""

    def _route(self, path: str) -> None:
        # A page of another site may resolve its name to this machine (DNS rebinding): its
        # requests have that name.
        if not self._is_own_name():
            self._send_message(HTTPStatus.FORBIDDEN, "Unknown host name; use the address.")
        elif path in FILES:
            self._send(HTTPStatus.OK, FILES[path], (TEMPLATES / path.lstrip("/")).read_bytes())
        elif path == "/progress.json":
            self._send(HTTPStatus.OK, JSON, json.dumps(self._progress()).encode())
        elif path == "/":
            title = str(self.server.folder.resolve())
            self._send_page(HTTPStatus.OK, title=title, message="", **self._progress())
        else:
            # Compared with known pages: no path is made from the request.
            for group, _ in self.server.progress.scan():
                if path == unquote(group.url, errors="surrogateescape"):
                    with self.server.pages.open(group) as page:
                        self._send(HTTPStatus.OK, HTML, page, policy=REPORT_POLICY)
                    return
            self._send_message(HTTPStatus.NOT_FOUND, "No such page.")

    def _is_own_name(self) -> bool:
        host = (self.headers.get("Host") or "").casefold()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name in self.server.names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _progress(self) -> dict[str, Any]:
        sweeps = [progress for _, progress in self.server.progress.scan()]
        version = hashlib.sha256(json.dumps(sweeps).encode()).hexdigest()[:16]
        return {"version": version, "sweeps": sweeps}

    def _send_message(
        self, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        fields = {"title": status.phrase, "message": text, "version": "", "sweeps": []}
        self._send_page(status, headers, **fields)

    def _send_page(
        self, status: HTTPStatus, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> None:
        page = _index_template().render(**fields)
        self._send(status, HTML, page.encode(errors="replace"), headers=headers)

    def _send(
        self,
        status: HTTPStatus,
        kind: str,
        content: bytes | BinaryIO,
        policy: str = INDEX_POLICY,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = BytesIO(content) if isinstance(content, bytes) else content
        length = body.seek(0, os.SEEK_END)
        body.seek(0)
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(length)}
        fields |= {"Content-Security-Policy": policy, **SECURITY, **(headers or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            shutil.copyfileobj(body, self.wfile)


@cache
def _index_template() -> Any:
    return make_environment().get_template("index.html.j2")
