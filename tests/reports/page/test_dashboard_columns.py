"""Every table of the page: as many cells in a row as its head has columns."""

import math
import re
from html.parser import HTMLParser

import pytest
from fake_runs import full_run

from anomalib_rd.reports.page import build_page

PIXEL = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_5")
WHY = "12 of 18 defect images have no ground-truth mask"


class Tables(HTMLParser):
    """The width of each row of each table, cells that span rows above it included."""

    def __init__(self, text):
        super().__init__()
        self.tables = []
        self.feed(re.sub(r"<script.*?</script>", "", text, flags=re.S))

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append([])
            self.spans = []
        elif tag == "tr":
            self.spans = [(rows - 1, columns) for rows, columns in self.spans if rows > 1]
            self.tables[-1].append(sum(columns for _, columns in self.spans))
        elif tag in ("th", "td"):
            size = dict(attributes)
            columns = int(size.get("colspan", 1))
            self.tables[-1][-1] += columns
            self.spans.append((int(size.get("rowspan", 1)), columns))


def without_masks(folder, category="own", data="own", **keywords):
    undefined = {"metrics": dict.fromkeys(PIXEL, math.nan), "undefined": dict.fromkeys(PIXEL, WHY)}
    return full_run(folder, category, data=data, gallery=False, **undefined, **keywords)


def widths(folder):
    text = build_page([folder], folder / "report.html").read_text()
    return Tables(text).tables, text


def test_where_pixel_metrics_are_undefined(tmp_path):
    without_masks(tmp_path / "own")
    tables, text = widths(tmp_path)
    assert [len(set(rows)) for rows in tables] == [1] * len(tables)
    head, row = re.search(r'<table class="sortable headline">.*?</table>', text, re.S)[0].split(
        "<tbody>"
    )
    assert head.count("<th ") == row.count("<th ") + row.count("<td") == 9
    assert "image AUROC %" in head and "pixel AUROC" not in head
    assert text.count(f"undefined in own: {WHY}") == 1


@pytest.mark.parametrize("several", [False, True])
def test_where_some_data_and_some_variants_lack_metrics(tmp_path, several):
    without_masks(tmp_path / "own")
    full_run(tmp_path / "bottle", "bottle", gallery=False)
    if several:
        config = {"model.masking.strategy": "random"}
        without_masks(tmp_path / "blind", "bottle", "mvtec", config=config)
        full_run(tmp_path / "seed", "bottle", 1, gallery=False, metrics={"pro_rd4ad": 0.9})
    tables, _ = widths(tmp_path)
    assert len(tables) > 4
    assert [len(set(rows)) for rows in tables] == [1] * len(tables)


def test_of_a_whole_sweep(sweep, page_file):
    tables = Tables(page_file.read_text()).tables
    assert [len(set(rows)) for rows in tables] == [1] * len(tables)


def test_complete_runs_do_not_stand_below_a_heading_of_unfinished_ones(tmp_path):
    full_run(tmp_path / "run", gallery=False)
    _, text = widths(tmp_path)
    (heading,) = re.findall(r'<section id="unfinished">\s*<h2[^>]*>(.*?)</h2>', text)
    assert heading == "State of the runs"
    assert "<h3>Result</h3>" in text
