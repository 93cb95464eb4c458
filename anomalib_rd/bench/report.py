"""``bench report``: how long a large sweep takes to sum up, and its page to build and to open."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from anomalib_rd.bench.browser import opened
from anomalib_rd.bench.made_up import make_sweep

# On two CPU cores of these years.
TARGETS = {
    "tables, s": 2.0,
    "build, CPU s": 20.0,
    "peak memory, MiB": 2048.0,
    "file, MB": 40.0,
    "first paint, s": 3.0,
}
_TABLES = """
import io, json, sys, time
from rich.console import Console
start = time.perf_counter()
from anomalib_rd.reports.report import report
report([sys.argv[1]], out=sys.argv[2], console=Console(file=io.StringIO(), width=100))
print(json.dumps({"tables, s": time.perf_counter() - start}))
"""
_BUILD = """
import json, sys, time
from pathlib import Path
start = time.perf_counter()
from anomalib_rd.reports.dashboard import build_page
page = build_page([Path(sys.argv[1])], Path(sys.argv[2]))
from anomalib_rd.bench.memory import peak_rss
print(json.dumps({
    "build, s": time.perf_counter() - start,
    "build, CPU s": time.process_time(),
    "peak memory, MiB": peak_rss() / 2**20,
    "file, MB": page.stat().st_size / 1e6,
}))
"""


def measure(categories: int, seeds: int, variants: int) -> dict[str, Any]:
    """Sums up made-up runs and builds their page, each in a process of its own, and opens it.

    Returns:
        ``runs`` and ``contestants``: figure -> ``value`` and ``target`` (None for those that
        are shown for comparison). Without Playwright and a Chromium the figures of the browser
        are left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        top, page = Path(folder, "sweep"), Path(folder, "report.html")
        count = make_sweep(top, categories, seeds, variants)
        figures = _figures(_TABLES, top, Path(folder, "tables"))
        figures |= _figures(_BUILD, top, page)
        figures |= opened(page)
    return {
        "runs": count,
        "contestants": {
            name: {"value": value, "target": TARGETS.get(name)} for name, value in figures.items()
        },
    }


def _figures(program: str, sweep: Path, out: Path) -> dict[str, float]:
    """What a program says of a sweep; it gets the sweep's folder and where to write."""
    words = [sys.executable, "-c", program, str(sweep), str(out)]
    said: dict[str, float] = json.loads(
        subprocess.run(words, check=True, capture_output=True).stdout
    )
    return said
