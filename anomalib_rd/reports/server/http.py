"""The server: an index of a folder's sweeps, their progress as JSON, and their report pages."""

import hashlib
import ipaddress
import json
import shutil
import socket
import sys
import traceback
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from socketserver import TCPServer
from typing import Any, BinaryIO
from urllib.parse import unquote

from jinja2 import Environment, PackageLoader, StrictUndefined

from anomalib_rd.errors import UserError
from anomalib_rd.reports.server.found import Overview
from anomalib_rd.reports.server.pages import Build, Pages

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
        loader=PackageLoader("anomalib_rd.reports.server"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
