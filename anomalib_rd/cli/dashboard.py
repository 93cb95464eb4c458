"""``anomalib-rd dashboard``: the reports of a folder in the browser."""

import threading
import webbrowser
from ipaddress import ip_address
from pathlib import Path

from anomalib_rd.cli.common import Parser


def run(words: list[str]) -> int:
    """Serve until Ctrl-C."""
    parser = Parser(
        prog="anomalib-rd dashboard",
        description="Serve the sweeps found in a folder to the browser: how far each is, "
        "refreshed by itself, and its report page, made anew when runs have finished since. "
        "Ctrl-C stops it.",
    )
    parser.add_argument("folder", type=Path, help="of sweeps, such as multirun, or a sweep's")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; default: 127.0.0.1, which this machine alone can reach",
    )
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any free one")
    parser.add_argument("--open", action="store_true", help="open the browser")
    options = parser.parse_args(words)
    from anomalib_rd.reports.dashboard import build_page
    from anomalib_rd.reports.server import DashboardServer

    with DashboardServer(options.folder, build_page, options.host, options.port) as server:
        print(f"{options.folder} is at {server.url} (Ctrl-C stops)", flush=True)
        if not is_loopback(options.host):
            print("Whoever can reach this machine can read it: there is no password.", flush=True)
        if options.open:
            # A browser in the terminal would hold up the server.
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
    return 0


def is_loopback(host: str) -> bool:
    """Whether the address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
