"""``bench report``: the page of made-up runs is built and, where there is a browser, opened."""

import shutil
from importlib.util import find_spec

from anomalib_rd.bench import made_up, report, show
from anomalib_rd.bench.machine import machine


def test_the_page_of_a_small_sweep_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(made_up, "GOOD", 3)
    monkeypatch.setattr(made_up, "EACH", 1)
    result = report.measure(categories=2, seeds=1, variants=2)
    assert result["runs"] == 4
    values = {name: figure["value"] for name, figure in result["contestants"].items()}
    assert values["tables, s"] > 0 and values["build, s"] > 0 and values["build, CPU s"] > 0
    assert values["peak memory, MiB"] > 50 and values["file, MB"] > 1
    has_browser = find_spec("playwright") and (
        shutil.which("chromium") or shutil.which("chromium-browser")
    )
    assert bool(has_browser) == ("filter, s" in values)
    show.show_report(machine(cuda=False) | result)
    assert "first paint" in capsys.readouterr().out or not has_browser
