"""What a report is before it is drawn: tables of finished cells, with footnotes."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

OTHER_PRO = "†"
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Column:
    """A heading, in lines, the last ending in its unit.

    ``priority`` 0 is never left out for lack of width; ``source`` says where the numbers
    are from if they are not ours.
    """

    heading: tuple[str, ...]
    priority: int = 0
    source: str | None = None

    @property
    def line(self) -> str:
        """The heading on one line; words broken for the narrow form are joined again."""
        return " ".join(self.heading).replace("- ", "").replace("/ ", "/").strip()

    @property
    def name(self) -> str:
        """The heading without its unit."""
        return self.heading[0] if self.source else " ".join(self.heading[:-1])


@dataclass(frozen=True)
class Row:
    """A label and one cell for each column; a strong row is a mean of ours."""

    label: str
    cells: tuple[str, ...]
    strong: bool = False
    source: str | None = None


@dataclass
class Notes:
    """Footnotes, numbered in order of appearance; the same text has the same number."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The superscript number of a footnote, which is added if it is new."""
        if text not in self.texts:
            self.texts.append(text)
        return superscript(self.texts.index(text) + 1)


@dataclass(frozen=True)
class Table:
    """Sections of rows under one heading row; ``label`` heads the rows' labels.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """

    title: str
    statement: str
    label: str
    columns: list[Column]
    sections: list[list[Row]]
    notes: Notes
    remarks: list[str]

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

    def keep(self, kept: list[int]) -> "Table":
        """The table with only the columns at these positions."""
        sections = [
            [replace(row, cells=tuple(row.cells[i] for i in kept)) for row in section]
            for section in self.sections
        ]
        return replace(self, columns=[self.columns[i] for i in kept], sections=sections)

    def footnotes(self) -> list[str]:
        """The numbered notes that the shown cells use, and the remarks."""
        shown = "".join(cell for row in self.rows() for cell in row.cells)
        numbered = [
            f"{superscript(number)} {text}"
            for number, text in enumerate(self.notes.texts, start=1)
            if superscript(number) in shown
        ]
        return numbered + self.remarks


@dataclass(frozen=True)
class Document:
    """All that a report shows: tables, and one line for each run that failed."""

    tables: list[Table]
    failures: list[str]


def sources(tables: Iterable[Table]) -> list[str]:
    """Where the numbers of others in these tables are from, one line each, once."""
    lines: dict[str, None] = {}
    dagger = False
    for table in tables:
        lines |= {column.source: None for column in table.columns if column.source}
        lines |= {row.source: None for row in table.rows() if row.source}
        dagger |= any(OTHER_PRO in cell for row in table.rows() for cell in row.cells)
    last = [f"{OTHER_PRO} PRO by another or unknown protocol: does not compare with AUPRO."]
    return [*lines, *(last if dagger else [])]


def superscript(number: int) -> str:
    """The number in superscript digits."""
    return str(number).translate(_SUPERSCRIPT)
