"""What a folder holds: its sweeps and other runs, and how far each is."""

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

from jinja2 import Environment, PackageLoader, StrictUndefined

from anomalib_rd.errors import UserError
from anomalib_rd.reports.formatting import format_time_left
from anomalib_rd.reports.page import PAGE
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


TEMPLATES = Path(__file__).parent / "templates"
FILES = {"/index.css": "text/css", "/index.js": "text/javascript"}
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
OWN_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    + _NOTHING_ELSE
)
# A report is one file with its scripts, styles and pictures inside, and asks for nothing.
REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; " + _NOTHING_ELSE
)
JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"


class DashboardServer(ThreadingHTTPServer):
    """Serves one folder's reports; nothing else of the folder.

    Args:
        folder: of sweeps, one sweep, or runs.
        build: writes a report page, see `Pages`.
        host: a name or address of this machine.
        port: 0 takes any free one.

    Attributes:
        url: where the index is.

    Raises:
        UserError: no such folder, or the address cannot be taken.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, folder: Path, build: Build, host: str = "127.0.0.1", port: int = 8000
    ) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give a sweep's, or one that holds sweeps")
        self.folder = folder
        self.overview, self.pages = Overview(folder), Pages(folder, build)
        self.names = {"localhost", host.casefold(), socket.gethostname().casefold()} - {""}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"{host} port {port} cannot be taken ({one_reason(error)}); give another with "
                "--port, 0 takes any free one"
            ) from error
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Without the name look-up of ``HTTPServer``, which can take long and serves nothing."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes its end is no error; others are shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def one_reason(error: Exception) -> str:
    """The system's words for an error, without its number."""
    return (getattr(error, "strerror", None) or str(error)).lower()


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the known paths."""

    server: DashboardServer
    server_version, sys_version = "anomalib-rd", ""
    timeout = 30  # seconds for a browser to say what it wants

    def do_GET(self) -> None:
        """Answer, whatever goes wrong."""
        try:
            self._route(unquote(self.path.partition("?")[0], errors="surrogateescape"))
        except UserError as error:
            self._page(HTTPStatus.NOT_FOUND, str(error))
        except ConnectionError:
            raise
        except Exception:
            traceback.print_exc()
            self._page(HTTPStatus.INTERNAL_SERVER_ERROR, "The server's terminal says why.")

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What can't be read or is another method gets the same headers as all."""
        del explain
        if code == HTTPStatus.NOT_IMPLEMENTED:
            allowed = {"Allow": "GET, HEAD"}
            self._page(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.", allowed)
        else:
            self._page(HTTPStatus(code), message or "")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the terminal is for what goes wrong."""

    def _route(self, path: str) -> None:
        # Another site's page may have its name resolved to this machine (DNS rebinding): its
        # requests come with that name.
        if not self._is_for_us():
            self._page(HTTPStatus.FORBIDDEN, "Not a name of this machine; ask for its address.")
        elif path in FILES:
            content = (TEMPLATES / path.removeprefix("/")).read_bytes()
            self._answer(HTTPStatus.OK, FILES[path], content)
        elif path == "/progress.json":
            content = json.dumps(self._progress()).encode()
            self._answer(HTTPStatus.OK, JSON, content)
        elif path == "/":
            self._answer(HTTPStatus.OK, HTML, self._index())
        else:
            self._report(path)

    def _report(self, path: str) -> None:
        """A page that was found in the folder: no path is made from what was asked for."""
        for found in self.server.overview.look()[0]:
            if path == unquote(found.url, errors="surrogateescape"):
                with self.server.pages.open(found) as page:
                    self._answer(HTTPStatus.OK, HTML, page, policy=REPORT_POLICY)
                return
        self._page(HTTPStatus.NOT_FOUND, "No such page.")

    def _is_for_us(self) -> bool:
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
        sweeps = self.server.overview.look()[1]
        version = hashlib.sha256(json.dumps(sweeps).encode()).hexdigest()[:16]
        return {"version": version, "sweeps": sweeps}

    def _index(self) -> bytes:
        folder = str(self.server.folder.resolve())
        return (
            template("index.html.j2")
            .render(folder=folder, **self._progress())
            .encode(errors="replace")
        )

    def _page(self, status: HTTPStatus, text: str, more: Mapping[str, str] | None = None) -> None:
        page = template("message.html.j2").render(title=status.phrase, text=text)
        self._answer(status, HTML, page.encode(errors="replace"), more=more)

    def _answer(
        self,
        status: HTTPStatus,
        kind: str,
        content: bytes | BinaryIO,
        policy: str = OWN_POLICY,
        more: Mapping[str, str] | None = None,
    ) -> None:
        body = BytesIO(content) if isinstance(content, bytes) else content
        length = body.seek(0, 2)
        body.seek(0)
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(length)}
        headers |= {"Content-Security-Policy": policy, **SECURITY, **(more or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            shutil.copyfileobj(body, self.wfile)


@cache
def template(name: str) -> Any:
    """A page's template; all that is put in is escaped."""
    environment = Environment(
        loader=PackageLoader("anomalib_rd.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
