"""Tables of finished cells with footnotes, before they are rendered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

OTHER_PRO = "†"
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Column:
    """A heading in lines, the last of which is the unit.

    Columns of low ``priority`` are dropped last where the terminal is narrow, those of 0 never.
    ``source`` is the reference of published numbers, None for our own.
    """

    heading: tuple[str, ...]
    priority: int = 0
    source: str | None = None

    @property
    def line(self) -> str:
        """The heading on one line; words hyphenated over two lines are joined."""
        return " ".join(self.heading).replace("- ", "").replace("/ ", "/").strip()

    @property
    def name(self) -> str:
        """The heading without its unit."""
        return self.heading[0] if self.source else " ".join(self.heading[:-1])


@dataclass(frozen=True)
class Row:
    """A label and one cell for each column; our means are bold."""

    label: str
    cells: tuple[str, ...]
    bold: bool = False
    source: str | None = None


@dataclass
class Notes:
    """Footnotes, numbered in order of appearance; equal texts share a number."""

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> str:
        """The superscript number of a footnote, which is added if it is new."""
        if text not in self.texts:
            self.texts.append(text)
        return superscript(self.texts.index(text) + 1)


@dataclass(frozen=True)
class Table:
    """Sections of rows under one heading row; ``label`` heads the row labels.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """

    title: str
    statement: str
    label: str
    columns: list[Column]
    sections: list[list[Row]]
    notes: Notes = field(default_factory=Notes)
    remarks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for row in self.rows():
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"{self.title}, row {row.label!r}: {len(row.cells)} cells for "
                    f"{len(self.columns)} columns"
                )

    def rows(self) -> list[Row]:
        """The rows of all sections."""
        return [row for section in self.sections for row in section]

    def select_columns(self, positions: Sequence[int]) -> "Table":
        """The table with only these columns."""
        sections = [
            [replace(row, cells=tuple(row.cells[i] for i in positions)) for row in section]
            for section in self.sections
        ]
        return replace(self, columns=[self.columns[i] for i in positions], sections=sections)

    def footnotes(self) -> list[str]:
        """The numbered notes that its cells refer to, then the remarks."""
        cells = "".join(cell for row in self.rows() for cell in row.cells)
        marks = {superscript(i): text for i, text in enumerate(self.notes.texts, start=1)}
        return [f"{mark} {text}" for mark, text in marks.items() if mark in cells] + self.remarks


@dataclass(frozen=True)
class Document:
    """A report's tables, and one line for each failed run."""

    tables: list[Table]
    failures: list[str]


def list_sources(tables: Iterable[Table]) -> list[str]:
    """References of the published numbers in these tables, one line each."""
    lines: dict[str, None] = {}
    other_pro = False
    for table in tables:
        sources = [column.source for column in table.columns]
        sources += [row.source for row in table.rows()]
        lines |= {source: None for source in sources if source}
        other_pro |= any(OTHER_PRO in cell for row in table.rows() for cell in row.cells)
    note = f"{OTHER_PRO} PRO of another or unknown protocol: not comparable with AUPRO."
    return [*lines, *([note] if other_pro else [])]


def superscript(number: int) -> str:
    """The number in superscript digits."""
    return str(number).translate(_SUPERSCRIPT)
