"""Tables written for the terminal, as Markdown and as LaTeX."""

import re
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from anomalib_rd.reports.layout import OTHER_PRO, Document, Table, sources

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


def to_markdown(document: Document) -> str:
    """The same tables as in the terminal, with every column."""
    parts = [_markdown_table(table) for table in document.tables]
    parts += _list("Reported by others", sources(document.tables))
    parts += _list(f"Failed runs: {len(document.failures)}", document.failures)
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    headings = (table.label, *(column.line for column in table.columns))
    lines = [
        f"### {_escape_markdown(table.title)}",
        "",
        _escape_markdown_line(table.statement),
        "",
        _markdown_row(map(_escape_markdown, headings)),
        _markdown_row(["---", *["---:"] * len(table.columns)]),
    ]
    for row in table.rows():
        cells = [_escape_markdown(cell) for cell in (row.label, *row.cells)]
        lines.append(
            _markdown_row(f"**{cell}**" if row.strong and cell else cell for cell in cells)
        )
    notes = [f"- {_escape_markdown_line(note)}" for note in table.footnotes()]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _list(title: str, lines: list[str]) -> list[str]:
    items = [f"- {_escape_markdown_line(line)}" for line in lines]
    return ["\n".join([f"### {title}", "", *items])] if items else []


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    """The text with all that GitHub's Markdown would read as markup made plain."""
    escaped = re.sub(r"([|*<>\\`\[\]&~$#])", r"\\\1", " ".join(text.split()))
    # An underscore inside a word is no emphasis, and names read better without a backslash.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", escaped)


def _escape_markdown_line(text: str) -> str:
    """The same of a whole line, at whose start a number or signs would make a list or a rule."""
    return re.sub(r"^(\d*)([-+.)])(?=[-\s]|$)", r"\1\\\2", _escape_markdown(text))


PREAMBLE = r"% \usepackage[T1]{fontenc} \usepackage{booktabs} \usepackage{graphicx}"
# Shrinks a table to the page, but enlarges none.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    OTHER_PRO: r"\dag{}",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def to_latex(document: Document) -> str:
    r"""The tables as floats to ``\input``; nothing is bold, for the best may be so by chance.

    What others report category by category is left out: it does not fit a page.
    """
    return "\n\n".join([PREAMBLE, *map(_latex_table, document.tables)]) + "\n"


def escape_latex(text: str) -> str:
    """The text with all that LaTeX would read as a command made plain."""
    escaped = "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))
    escaped = escaped.replace("$<$=", r"$\leq$")
    # Two of these in a row would become one other character.
    escaped = re.sub(r"([-',])(?=\1)", r"\1{}", escaped)
    escaped = re.sub(r"(?<![\w.)}-])-(?=\d)", "$-$", escaped)
    return re.sub(
        "[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: rf"\textsuperscript{{{m[0].translate(_SUPERSCRIPTS)}}}", escaped
    )


def _latex_table(table: Table) -> str:
    ours = table.keep([i for i, column in enumerate(table.columns) if column.source is None])
    height = max(len(column.heading) for column in ours.columns)
    # Headings in lines, the unit always in the last.
    stacked = [("",) * (height - len(c.heading)) + c.heading for c in ours.columns]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(ours.title)}}}",
        _FITTED,
        rf"\begin{{tabular}}{{l{'r' * len(ours.columns)}}}",
        r"\toprule",
    ]
    for number, heading in enumerate(zip(*stacked, strict=True)):
        lines.append(_latex_row([ours.label if number == 0 else "", *heading]))
    for section in ours.sections:
        if section:
            lines.append(r"\midrule")
        lines += [_latex_row([row.label, *row.cells]) for row in section]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines.append(r"\par\smallskip\raggedright")
    lines += [
        rf"{escape_latex(n)}\par" for n in (ours.statement, *ours.footnotes(), *sources([ours]))
    ]
    return "\n".join([*lines, r"\end{table}"])


def _latex_row(cells: Iterable[str]) -> str:
    text = " & ".join(escape_latex(cell) for cell in cells)
    # After the row before, "[" and "*" would be read as an option of its line break.
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"
