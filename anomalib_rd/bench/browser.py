"""How long the page of a sweep takes to open, sort and filter in Chromium."""

import shutil
from pathlib import Path

_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime / 1000"
_READY = "performance.timing.loadEventEnd - performance.timing.navigationStart"
# Until the frame after the change has been drawn.
_TIMED = """async (act) => {
  const start = performance.now();
  new Function(act)();
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return (performance.now() - start) / 1000;
}"""
_ACTS = {
    "sort, s": "document.querySelector('#runs-table th:nth-child(4) button').click()",
    "metric, s": "document.querySelector('#metric-bar [value=aupro]').click()",
    "gallery, s": "location.hash = '#/gallery'",
    "filter, s": "const s = document.querySelector('[name=kind]'); s.value = 'wrong';"
    "s.dispatchEvent(new Event('change'))",
    "run, s": "location.hash = document.querySelector('#runs-table a').hash",
}


def opened(page: Path) -> dict[str, float]:
    """Seconds to the first paint and the end of loading, and for each act until it is drawn.

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
        # The page's policy forbids the evaluation of text, which the acts are.
        tab = browser.new_context(bypass_csp=True).new_page()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_function(f"{_PAINT} > 0 && {_READY} > 0")
        figures = {"first paint, s": tab.evaluate(_PAINT)}
        figures["loaded, s"] = tab.evaluate(_READY) / 1000
        for name, act in _ACTS.items():
            figures[name] = tab.evaluate(_TIMED, act)
        browser.close()
    return figures
