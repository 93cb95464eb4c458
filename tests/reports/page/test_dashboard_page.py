import json
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
    assert ids == [None, "payload", "pictures-0", "pictures-1", "pictures-2", "plotly", None]
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
    assert '"curves":{}' in page and 'id="pictures-0"' not in page


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
    assert f"Page: {tmp_path / 'out' / 'report.html'}" in capsys.readouterr().out


def test_a_page_that_cannot_be_written_leaves_the_old_one(sweep, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError, match="cannot be written"):
        build_page([sweep], tmp_path / "file" / "report.html", images=2)
    assert (tmp_path / "file").read_text() == "old"
