import json
import math
import re
from html.parser import HTMLParser

import pytest
from fake_runs import full_run

from anomalib_rd.cli import run_command
from anomalib_rd.errors import UserError
from anomalib_rd.reports.page import build_page

EMPTY = {"meta", "link", "input", "br", "img"}


class Elements(HTMLParser):
    """All tags with their attributes, and the text of each table's cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.scripts, self.inside = [], [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = (tag, dict(attributes))

    def handle_data(self, data):
        if self.inside and self.inside[0] == "script":
            self.scripts.setdefault(self.inside[1].get("id"), []).append(data)
        elif data.strip():
            self.cells.append(data.strip())


@pytest.fixture(scope="module")
def text(page_file):
    return page_file.read_text()


@pytest.fixture(scope="module")
def elements(text):
    # Plotly's five megabytes say nothing here.
    return Elements(
        re.sub(r'(<script type="text/plain" id="plotly">).*?(</script>)', r"\1\2", text, flags=re.S)
    )


def test_nothing_is_loaded_from_anywhere(elements):
    for tag, attributes in elements.tags:
        address = attributes.get("src") or (attributes.get("href", "#") if tag != "link" else "#")
        assert address.startswith(("#", "data:")), (tag, attributes)
    policy = next(a for t, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith(
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
    )


def test_hostile_names_make_no_element(elements):
    ids = [a.get("id") for t, a in elements.tags if t == "script"]
    assert ids == [None, "payload", "images-0", "images-1", "images-2", "plotly", None]
    assert not any(tag in ("u", "b", "img") for tag, _ in elements.tags)


def test_the_data_of_the_script_is_whole(elements):
    payload = json.loads("".join(elements.scripts["payload"]))
    assert len(payload["runs"]) == 10
    run = next(r for r in payload["runs"].values() if r["category"] == "bottle")
    assert set(run["curves"]) == {"image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro"}
    assert run["loss"] == [1.0, 0.5, None, 0.2, 0.1]
    assert run["oracle"]["epoch"] == 3 and run["config"]["optimizer"] == {"lr": 0.005}
    assert {row["name"] for row in run["defects"]} == {"broken", "scratch", "stain"}
    group = next(g for g in payload["groups"] if g["category"] == "bottle")
    assert len(run["scores"]) == len(group["images"]) == 15
    hostile = next(g for g in payload["groups"] if g["category"] != "bottle" and len(g["runs"]) < 4)
    assert hostile["category"].startswith("</script>")


def test_the_tables_are_in_the_html(elements):
    cells = elements.cells
    for expected in (
        "85.50",
        "90.50",
        "+5.00",
        "carpet",
        "mean all",
        "failed",
        "missing",
        "seed=7",
    ):
        assert expected in cells
    assert 'anomalib-rd train -m sweep=x "<u>ü</u>"' in " ".join(cells)


def test_the_same_runs_keep_their_links(sweep, tmp_path, text):
    again = build_page([sweep], tmp_path / "again.html", images=2).read_text()
    links = re.findall(r"#/run/(\w+)", text)
    assert links and links == re.findall(r"#/run/(\w+)", again)


def test_a_run_without_curves_or_pictures_has_a_page(tmp_path):
    folder = full_run(tmp_path / "run", gallery=False)
    (folder / "curves.npz").unlink()
    page = build_page([folder], tmp_path / "report.html").read_text()
    assert '"curves":{}' in page and 'id="images-0"' not in page


def test_no_complete_run_and_no_such_baseline_are_said(sweep, tmp_path):
    with pytest.raises(UserError, match="no complete run"):
        build_page([tmp_path], tmp_path / "report.html")
    with pytest.raises(UserError, match="baseline 'nothing'"):
        build_page([sweep], tmp_path / "report.html", baseline="nothing")
    assert not (tmp_path / "report.html").exists()


def test_the_report_writes_the_page_when_asked(tmp_path, capsys):
    folder = full_run(tmp_path / "run", gallery=False)
    assert run_command(["report", str(folder), "--html", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").stat().st_size > 1e6
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out


def test_a_page_that_cannot_be_written_leaves_the_old_one(sweep, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError, match=r"report\.html"):
        build_page([sweep], tmp_path / "file" / "report.html", images=2)
    assert (tmp_path / "file").read_text() == "old"


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


def test_columns_where_pixel_metrics_are_undefined(tmp_path):
    without_masks(tmp_path / "own")
    tables, text = widths(tmp_path)
    assert [len(set(rows)) for rows in tables] == [1] * len(tables)
    table = re.search(r'<table class="sortable variants">.*?</table>', text, re.S)[0]
    head, row = table.split("<tbody>")
    assert head.count("<th ") == row.count("<th ") + row.count("<td") == 9
    assert "image AUROC" in head and "pixel AUROC" not in head
    assert text.count(f"undefined in own: {WHY}") == 1


@pytest.mark.parametrize("several", [False, True])
def test_columns_where_some_data_and_variants_have_no_pixel_metrics(tmp_path, several):
    without_masks(tmp_path / "own")
    full_run(tmp_path / "bottle", "bottle", gallery=False)
    if several:
        config = {"model.masking.strategy": "random"}
        without_masks(tmp_path / "blind", "bottle", "mvtec", config=config)
        full_run(tmp_path / "seed", "bottle", 1, gallery=False, metrics={"pro_rd4ad": 0.9})
    tables, _ = widths(tmp_path)
    assert len(tables) > 4
    assert [len(set(rows)) for rows in tables] == [1] * len(tables)


def test_columns_of_a_sweep(sweep, page_file):
    tables = Tables(page_file.read_text()).tables
    assert [len(set(rows)) for rows in tables] == [1] * len(tables)


def test_complete_runs_have_no_table_of_incomplete_ones(tmp_path):
    full_run(tmp_path / "run", gallery=False)
    _, text = widths(tmp_path)
    assert 'id="status"' in text
    assert 'class="box incomplete"' not in text and 'class="banner"' not in text
