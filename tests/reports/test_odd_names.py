"""Names with characters that mean something where they are shown come back as themselves."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from fake_runs import fake_run, full_run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from anomalib_rd.reports.figures.style import LONGEST_NAME, make_file_name
from anomalib_rd.reports.page import build_page
from anomalib_rd.reports.table_model import Column, Document, Notes, Row, Table
from anomalib_rd.reports.text_tables import escape_latex, print_document, to_latex, to_markdown
from anomalib_rd.results.runs_table import load_runs, to_long_format, write_csv

# White space is shown as one space everywhere, and separates the words of labels.
WORDS = st.text(st.sampled_from("ab1_*`|<>&[]/(){}#$%^~\\\"'!?,.;:=+-@ü図"), min_size=1, max_size=9)
NAMES = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)
FEW = settings(max_examples=200, deadline=None)
TAGS = [
    "p[left]",
    "[bold]x[/bold]",
    "[/]",
    "x[/b]",
    "a|b",
    "_a_ __b__",
    "<b>&amp;</b>",
    "1. a",
    "- a",
]


def document(name):
    columns = [Column(("value", "%"))]
    sections = [[Row(name, ("1",)), Row("strong", (name,), bold=True)]]
    return Document([Table(name, "Statement.", "name", columns, sections, Notes(), [name])], [name])


class Texts(HTMLParser):
    """The text of each cell, item and heading, and the tags inside of them."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags, self.open = [], set(), False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in ("td", "th", "li", "h3"):
            self.texts.append("")
            self.open = True
        else:
            self.tags.add(tag)

    def handle_endtag(self, tag):
        self.open &= tag not in ("td", "th", "li", "h3")

    def handle_data(self, data):
        if self.open:
            self.texts[-1] += data


def examples(test):
    for name in TAGS:
        test = example(name)(test)
    return test


@FEW
@examples
@given(NAMES)
def test_in_the_terminal(name):
    console = Console(file=io.StringIO(), width=200)
    print_document(document(name), console)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    assert lines[0] == name and f"- {name}" in lines
    assert any(line.startswith(name) and line.endswith("1") for line in lines)


@FEW
@examples
@given(NAMES)
def test_in_markdown(name):
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found = Texts(rendered.render(to_markdown(document(name))))
    assert [text.strip() for text in found.texts].count(name) >= 5
    assert found.tags == {"p", "table", "thead", "tbody", "tr", "ul", "strong"}


COMMANDS = {
    r"\textbackslash": "\\",
    r"\textasciitilde": "~",
    r"\textasciicircum": "^",
    r"\textasciigrave": "`",
    r"\textquotedbl": '"',
    r"\textbar": "|",
}
LIGATURES = ("--", "''", "``", ",,", "<<", ">>", "?`", "!`")


def read_latex(text):
    """What LaTeX makes of the text; fails on what is no plain character."""
    for two in LIGATURES:
        assert two not in text
    pattern = r"(\\text[a-z]+)\{\}|\\([&%$#_{}])|\$(<|>|-)\$|(\$\\leq\$)|(\{\})|([^\\&%$#_{}^~])"
    made, at = "", 0
    for found in re.finditer(pattern, text):
        assert found.start() == at, text[at:]
        command, special, sign, least, _, plain = found.groups()
        made += COMMANDS[command] if command else special or sign or plain or ""
        made += "<=" if least else ""
        at = found.end()
    assert at == len(text), text[at:]
    return made


@FEW
@examples
@given(NAMES)
def test_in_latex(name):
    assert read_latex(escape_latex(name)) == name
    row = next(line for line in to_latex(document(name)).splitlines() if line.endswith(r"& 1 \\"))
    assert not row.startswith(("[", "*"))


@given(name=NAMES)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_in_csv(name, tmp_path):
    fake_run(tmp_path / "run", name)
    path = write_csv(to_long_format(load_runs([tmp_path])), tmp_path / "summary.csv")
    with path.open(newline="") as file:
        assert {row["category"] for row in csv.DictReader(file)} == {name}


@pytest.mark.parametrize("place", ["category", "variant"])
@given(names=st.lists(NAMES, min_size=2, max_size=6, unique=True))
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_on_the_page(names, place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    names = list(dict.fromkeys([*names, *TAGS]))
    for number, name in enumerate(names):
        if place == "category":
            full_run(folder / f"{number:02}", name, gallery=False)
        else:
            full_run(
                folder / f"{number:02}", gallery=False, config={"model.masking.strategy": name}
            )
    text = build_page([folder], folder / "report.html").read_text()
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', text, re.S)[1])
    if place == "category":
        assert {run["category"] for run in payload["runs"].values()} == set(names)
    else:
        configs = [run["config"] for run in payload["runs"].values()]
        assert {config["model"]["masking"]["strategy"] for config in configs} == set(names)
    shown = Texts(re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S))
    if place == "category":
        assert set(names) <= {cell.strip() for cell in shown.texts}
    assert "b" not in shown.tags


@FEW
@given(st.lists(st.text(max_size=120), min_size=2, max_size=4))
def test_as_the_name_of_a_figure(names):
    taken = set()
    made = [make_file_name(name, taken) for name in names]
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        assert re.fullmatch(r"[\w=+][\w.=+-]*", name), name
        assert len(name.encode()) <= LONGEST_NAME + 5
