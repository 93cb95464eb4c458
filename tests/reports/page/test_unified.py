"""A model of several categories next to one model each: its categories are rows like runs."""

import json
import re

import pytest
from fake_runs import full_run

from anomalib_rd.reports.page import build_page
from anomalib_rd.reports.result_tables import variant_table
from anomalib_rd.reports.study import describe_setup
from anomalib_rd.results.record import category_folder
from anomalib_rd.results.runs_table import category_table, load_runs

NAMES = ("bottle", "pill")
UNIFIED = {"name": "mvtec", "unified": True, "category": list(NAMES), "root": "data/mvtec"}
CURVE = [{"epoch": epoch, "image_auroc": 0.9, "aupro": 0.8} for epoch in (1, 2)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for name in NAMES:
        full_run(folder / name / "single", name)
        part = category_folder(folder / "bottle+pill/unified", name)
        full_run(part, name, config={"data": UNIFIED}, test_curve=CURVE)
    full_run(folder / "bottle+pill/unified", gallery=False, config={"data": UNIFIED})
    return folder


def test_its_table_has_a_row_for_each_category_and_a_remark(sweep):
    runs = load_runs([sweep])
    for variant, own in runs.groupby("variant", sort=False):
        table = variant_table(own, category_table(own), {}, with_means=True)
        assert [row.label for row in table.sections[0]] == list(NAMES)
        unified = variant.endswith("unified=true")
        assert any("One model" in remark for remark in table.remarks) == unified


def test_the_facts_of_a_study_count_it_once(sweep):
    assert describe_setup(sweep, load_runs([sweep]))[0].startswith("- Runs: 3; ")


def test_the_page_counts_it_once_and_compares_its_categories(sweep):
    text = build_page([sweep], sweep / "page.html").read_text()
    assert 'data-complete="3"' in text
    payload = re.search(r'<script[^>]*id="payload"[^>]*>(.*?)</script>', text, re.DOTALL)
    groups = json.loads(payload[1])["groups"]
    assert [(group["category"], len(group["runs"])) for group in groups] == [
        ("bottle", 2),
        ("pill", 2),
    ]


def test_the_page_of_one_of_its_categories_in_a_browser(sweep, open_tab):
    page = build_page([sweep], sweep / "opened.html")
    tab = open_tab(page.as_uri() + "#/runs")
    tab.locator("#runs-table tr:has-text('unified=true') a >> visible=true").last.click()
    heading = tab.locator("#view-run h1").inner_text()
    assert "pill" in heading and "unified=true" in heading
    tab.wait_for_selector("#view-run .plot >> nth=4")
