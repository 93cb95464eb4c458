"""The report in the terminal."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from anomalib_rd.reports.layout import Document, Table, sources

GAP = 2  # characters between columns: one of padding, one of the box


def print_document(document: Document, console: Console | None = None) -> None:
    """Prints the tables, with as many columns as fit the console's width, and the failures."""
    console = console or Console()
    fitted = [fit(table, console.width) for table in document.tables]
    for table in fitted:
        _print_table(table, console)
    _print_lines("Reported by others", sources(fitted), console)
    _print_lines(
        f"Left out in {console.width} columns of text", left_out(document.tables, fitted), console
    )
    title = f"Failed runs: {len(document.failures)}"
    _print_lines(title, document.failures, console, style="bold red")


def fit(table: Table, width: int) -> Table:
    """The table without the least important columns that ``width`` characters cannot show."""
    kept = list(range(len(table.columns)))
    while _width(table.keep(kept)) > width:
        last = max(kept, key=lambda index: table.columns[index].priority)
        if table.columns[last].priority == 0:
            break
        kept.remove(last)
    return table.keep(kept)


def left_out(tables: Iterable[Table], fitted: Iterable[Table]) -> list[str]:
    """One line with the names of the columns that some table had to leave out, if any."""
    names: dict[str, None] = {}
    for table, shown in zip(tables, fitted, strict=True):
        for column in table.columns:
            if column not in shown.columns:
                names[column.name] = None
    return [", ".join(names)] if names else []


def _print_table(table: Table, console: Console) -> None:
    console.print(Text(table.title, style="bold"))
    console.print(Text(table.statement))
    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    drawn.add_column(Text(table.label), overflow="fold")
    for column in table.columns:
        drawn.add_column(Text("\n".join(column.heading)), justify="right", no_wrap=True)
    for section in table.sections:
        for row in section:
            cells = [Text(cell) for cell in (row.label, *row.cells)]
            drawn.add_row(*cells, style="bold" if row.strong else None)
        drawn.add_section()
    console.print(drawn)
    for line in table.footnotes():
        console.print(Text(line))
    console.print()


def _print_lines(title: str, lines: list[str], console: Console, style: str = "bold") -> None:
    if not lines:
        return
    console.print(Text(title, style=style))
    for line in lines:
        console.print(Text(f"- {line}"))
    console.print()


def _width(table: Table) -> int:
    labels = [table.label, *(row.label for row in table.rows())]
    # Long labels wrap: they shall not push columns out.
    widths = [min(24, max(map(len, labels)))]
    for index, column in enumerate(table.columns):
        cells = [row.cells[index] for row in table.rows()]
        widths.append(max(map(len, (*column.heading, *cells))))
    return sum(widths) + GAP * (len(widths) - 1)
