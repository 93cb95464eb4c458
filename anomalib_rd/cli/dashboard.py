"""``anomalib-rd dashboard``: the report pages of a folder in the browser."""

import threading
import webbrowser
from argparse import Namespace
from ipaddress import ip_address
from pathlib import Path

from anomalib_rd.cli.common import Parser


def add_arguments(parser: Parser) -> None:
    """Add the options of the command."""
    parser.describe(
        "Serve the sweeps in a folder to the browser: the progress of each, refreshed "
        "automatically, and its report page, rebuilt when runs have finished. Stop with Ctrl-C.",
        "multirun --open",
        "multirun/mine --port 9000",
    )
    parser.add_argument("folder", type=Path, help="a sweep, or a folder of sweeps like multirun")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, reachable only from this machine)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port; 0 takes any free one (default: %(default)s)"
    )
    parser.add_argument("--open", action="store_true", help="open the browser")
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """Serve until Ctrl-C."""
    from anomalib_rd.reports.page import build_page
    from anomalib_rd.reports.server import DashboardServer

    with DashboardServer(options.folder, build_page, options.host, options.port) as server:
        print(f"{options.folder} is at {server.url} (Ctrl-C stops)", flush=True)
        if not is_loopback(options.host):
            print("There is no password: everyone who can reach this host can read it.", flush=True)
        if options.open:
            # A browser in the terminal would block the server.
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
    return 0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
