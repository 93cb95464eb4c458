"""A model for all categories beside one for each: in the reports its categories stand as runs."""

import json
import re
import shutil

import pytest
from fake_runs import full_run

from anomalib_rd.reports.page import build_page
from anomalib_rd.reports.study import facts
from anomalib_rd.reports.tables import variant_table
from anomalib_rd.results.record import category_folder
from anomalib_rd.results.table import category_table, load_runs

NAMES = ("bottle", "pill")
SAID = {"name": "mvtec", "unified": True, "category": list(NAMES), "root": "data/mvtec"}
CURVE = [{"epoch": epoch, "image_auroc": 0.9, "aupro": 0.8} for epoch in (1, 2)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for name in NAMES:
        full_run(folder / name / "single", name)
        part = category_folder(folder / "bottle+pill/unified", name)
        full_run(part, name, config={"data": SAID}, test_curve=CURVE)
    full_run(folder / "bottle+pill/unified", gallery=False, config={"data": SAID})
    return folder


def test_its_table_says_what_it_is_and_has_a_row_for_each_category(sweep):
    runs = load_runs([sweep])
    for variant, own in runs.groupby("variant", sort=False):
        table = variant_table(own, category_table(own), {}, with_means=True)
        assert [row.label for row in table.sections[0]] == list(NAMES)
        unified = variant.endswith("unified=true")
        assert ("One model for all these categories, judged on each." in table.remarks) == unified


def test_a_studys_facts_count_it_once(sweep):
    assert facts(sweep, load_runs([sweep]))[0].startswith("- Runs: 3; ")


def test_the_page_counts_it_once_and_shows_its_categories_with_those_of_the_others(sweep):
    text = build_page([sweep], sweep / "page.html").read_text()
    assert "3 complete runs" in text
    payload = re.search(r'<script[^>]*id="payload"[^>]*>(.*?)</script>', text, re.DOTALL)
    groups = json.loads(payload[1])["groups"]
    assert [(group["category"], len(group["runs"])) for group in groups] == [
        ("bottle", 2),
        ("pill", 2),
    ]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a Chromium on the PATH")
def test_the_page_of_a_category_of_it_opens_in_a_browser(sweep):
    sync_api = pytest.importorskip("playwright.sync_api")
    page = build_page([sweep], sweep / "opened.html")
    complaints = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(page.as_uri() + "#/runs")
        tab.locator("#runs-table tr:has-text('unified=true') a >> visible=true").last.click()
        heading = tab.locator("h1 >> visible=true").last.inner_text()
        assert "pill" in heading and "unified=true" in heading
        tab.wait_for_selector("text=Test curve")
        browser.close()
    assert complaints == []
