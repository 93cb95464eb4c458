"""`bench startup` and `bench report`: duration of commands."""

import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from .made_up_sweep import make_sweep
from .measuring import interleaved

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    'python -c "import torch"': ["-c", "import torch"],
    "anomalib-rd --help": ["-m", "anomalib_rd", "--help"],
    "anomalib-rd train --cfg job": ["-m", "anomalib_rd", "train", "--cfg", "job"],
}
# Seconds, on any recent machine.
STARTUP_TARGETS = {"anomalib-rd --help": 0.5, "anomalib-rd train --cfg job": 2.0}
# On two recent CPU cores.
REPORT_TARGETS = {
    "tables, s": 2.0,
    "build, CPU s": 20.0,
    "peak memory, MiB": 2048.0,
    "file, MB": 40.0,
    "first paint, s": 3.0,
}
ROOT = Path(__file__).parents[3]
TABLES = """
import io, json, sys, time
from rich.console import Console
start = time.perf_counter()
from anomalib_rd.reports.report import report
report([sys.argv[1]], out=sys.argv[2], console=Console(file=io.StringIO(), width=100))
print(json.dumps({"tables, s": time.perf_counter() - start}))
"""
PAGE = """
import json, sys, time
from pathlib import Path
start = time.perf_counter()
from anomalib_rd.reports.page import build_page
page = build_page([Path(sys.argv[1])], Path(sys.argv[2]))
from experiments.speed.bench.measuring import peak_rss
print(json.dumps({
    "build, s": time.perf_counter() - start,
    "build, CPU s": time.process_time(),
    "peak memory, MiB": peak_rss() / 2**20,
    "file, MB": page.stat().st_size / 1e6,
}))
"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime / 1000"
READY = "performance.timing.loadEventEnd - performance.timing.navigationStart"
# Seconds until the frame after the change has been drawn.
TIMED = """async (act) => {
  const start = performance.now();
  new Function(act)();
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return (performance.now() - start) / 1000;
}"""
ACTIONS = {
    "sort, s": "document.querySelector('#runs-table th:nth-child(4) button').click()",
    "metric, s": "document.querySelector('#metric-bar [value=aupro]').click()",
    "gallery, s": "location.hash = '#/gallery'",
    "filter, s": "const s = document.querySelector('[name=result]'); s.value = 'wrong';"
    "s.dispatchEvent(new Event('change'))",
    "run, s": "location.hash = document.querySelector('#runs-table a').hash",
}


def measure_startup(rounds: int) -> dict[str, Any]:
    """Seconds of complete processes, in interleaved rounds.

    Returns:
        ``rounds`` and for each of ``contestants`` ``median_s``, ``min_s``, ``max_s`` and
        ``target_s`` (None for those without a target).
    """
    calls = {
        name: partial(subprocess.run, [sys.executable, *args], check=True, capture_output=True)
        for name, args in COMMANDS.items()
    }
    timings = interleaved(dict(calls), rounds)
    return {
        "rounds": rounds,
        "contestants": {
            timing.name: {**timing.summary, "target_s": STARTUP_TARGETS.get(timing.name)}
            for timing in timings
        },
    }


def measure_report(categories: int, seeds: int, variants: int) -> dict[str, Any]:
    """Summarise made-up runs, build their page (both in separate processes) and open the page.

    Returns:
        ``runs`` and ``contestants``: figure -> ``value`` and ``target`` (or None); without the
        browser's figures if Playwright or Chromium is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        sweep, page = Path(folder, "sweep"), Path(folder, "report.html")
        count = make_sweep(sweep, categories, seeds, variants)
        figures = {
            **_run_program(TABLES, sweep, Path(folder, "tables")),
            **_run_program(PAGE, sweep, page),
            **time_page(page),
        }
    return {
        "runs": count,
        "contestants": {
            name: {"value": value, "target": REPORT_TARGETS.get(name)}
            for name, value in figures.items()
        },
    }


def _run_program(program: str, sweep: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, "-c", program, str(sweep), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def time_page(page: Path) -> dict[str, float]:
    """Seconds to the first paint, to the end of loading, and of each action until it is drawn.

    Empty without Playwright or Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if chromium is None:
        return {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        # The page's policy forbids evaluating the text of the actions.
        tab = browser.new_context(bypass_csp=True).new_page()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_function(f"{PAINT} > 0 && {READY} > 0")
        figures = {"first paint, s": tab.evaluate(PAINT), "loaded, s": tab.evaluate(READY) / 1000}
        for name, action in ACTIONS.items():
            figures[name] = tab.evaluate(TIMED, action)
        browser.close()
    return figures
