"""The report as Markdown (GitHub's tables)."""

import re
from collections.abc import Iterable

from anomalib_rd.reports.layout import Document, Table, sources


def to_markdown(document: Document) -> str:
    """The same tables as in the terminal, with every column."""
    parts = [_table(table) for table in document.tables]
    parts += _list("Reported by others", sources(document.tables))
    parts += _list(f"Failed runs: {len(document.failures)}", document.failures)
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    headings = (table.label, *(column.line for column in table.columns))
    lines = [
        f"### {_escape(table.title)}",
        "",
        _escape_line(table.statement),
        "",
        _line(map(_escape, headings)),
        _line(["---", *["---:"] * len(table.columns)]),
    ]
    for row in table.rows():
        cells = [_escape(cell) for cell in (row.label, *row.cells)]
        lines.append(_line(f"**{cell}**" if row.strong and cell else cell for cell in cells))
    notes = [f"- {_escape_line(note)}" for note in table.footnotes()]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _list(title: str, lines: list[str]) -> list[str]:
    items = [f"- {_escape_line(line)}" for line in lines]
    return ["\n".join([f"### {title}", "", *items])] if items else []


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """The text with all that GitHub's Markdown would read as markup made plain."""
    escaped = re.sub(r"([|*<>\\`\[\]&~$#])", r"\\\1", " ".join(text.split()))
    # An underscore inside a word is no emphasis, and names read better without a backslash.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", escaped)


def _escape_line(text: str) -> str:
    """The same of a whole line, at whose start a number or signs would make a list or a rule."""
    return re.sub(r"^(\d*)([-+.)])(?=[-\s]|$)", r"\1\\\2", _escape(text))
