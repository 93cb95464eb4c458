import shutil
import sys
from pathlib import Path

import pytest

# The fake runs of tests/results are used here too.
sys.path.append(str(Path(__file__).parents[1] / "results"))

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs a Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_tab(chromium):
    """Opens a page in a new tab; at the end there must be no complaint and no request to load.

    Requests of ``http:`` are those of a test's own server.
    """
    contexts, complaints, requests = [], [], []

    def open_tab(url, **settings):
        settings = {"viewport": {"width": 1200, "height": 900}, **settings}
        contexts.append(chromium.new_context(**settings))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url.partition("#")[0]))
        tab.goto(url)
        return tab

    yield open_tab
    for context in contexts:
        context.close()
    assert complaints == []
    files = {url for url in requests if not url.startswith(("data:", "http://127.0.0.1:"))}
    assert len(files) <= 1 and all(url.startswith("file:") for url in files)
