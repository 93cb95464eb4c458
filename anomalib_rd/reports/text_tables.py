"""Tables in the terminal, as Markdown and as LaTeX."""

import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from anomalib_rd.reports.table_model import OTHER_PRO, Document, Table, list_sources

_GAP = 2  # characters between columns: one of padding, one of the box
_LONGEST_LABEL = 24  # characters; longer ones are wrapped
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
LATEX_PREAMBLE = r"% \usepackage[T1]{fontenc} \usepackage{booktabs} \usepackage{graphicx}"
# Shrinks a wide table to the page, and enlarges none.
_FIT_WIDTH = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "<": "$<$",
    ">": "$>$",
    "–": r"\textendash{}",
    "|": r"\textbar{}",
    OTHER_PRO: r"\dag{}",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


def print_document(document: Document, console: Console | None = None) -> None:
    """Print the tables with as many columns as fit the console, then references and failures."""
    console = console or Console()
    fitted = [_fit(table, console.width) for table in document.tables]
    for table in fitted:
        _print_table(table, console)
    dropped = dict.fromkeys(
        column.name
        for table, shown in zip(document.tables, fitted, strict=True)
        for column in table.columns
        if column not in shown.columns
    )
    _print_list("Published results", list_sources(fitted), console)
    hidden = [", ".join(dropped)] if dropped else []
    _print_list(f"Columns hidden at a width of {console.width} characters", hidden, console)
    failed = f"Failed runs: {len(document.failures)}"
    _print_list(failed, document.failures, console, style="bold red")


def _fit(table: Table, width: int) -> Table:
    """The table without the least important columns that do not fit the width."""
    kept = list(range(len(table.columns)))
    while _width(table.select_columns(kept)) > width:
        last = max(kept, key=lambda index: table.columns[index].priority)
        if table.columns[last].priority == 0:
            break
        kept.remove(last)
    return table.select_columns(kept)


def _width(table: Table) -> int:
    labels = [table.label, *(row.label for row in table.rows())]
    widths = [min(_LONGEST_LABEL, max(map(len, labels)))]
    for index, column in enumerate(table.columns):
        cells = [row.cells[index] for row in table.rows()]
        widths.append(max(map(len, (*column.heading, *cells))))
    return sum(widths) + _GAP * (len(widths) - 1)


def _print_table(table: Table, console: Console) -> None:
    # Text objects: names may hold what rich takes for markup.
    console.print(Text(table.title, style="bold"))
    console.print(Text(table.statement))
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column(Text(table.label), overflow="fold")
    for column in table.columns:
        grid.add_column(Text("\n".join(column.heading)), justify="right", no_wrap=True)
    for section in table.sections:
        for row in section:
            cells = [Text(cell) for cell in (row.label, *row.cells)]
            grid.add_row(*cells, style="bold" if row.bold else None)
        grid.add_section()
    console.print(grid)
    for line in table.footnotes():
        console.print(Text(line))
    console.print()


def _print_list(title: str, lines: Sequence[str], console: Console, style: str = "bold") -> None:
    if lines:
        console.print(Text(title, style=style))
        for line in lines:
            console.print(Text(f"- {line}"))
        console.print()


def to_markdown(document: Document) -> str:
    """The tables with all columns, for GitHub; then references and failures."""
    parts = [_markdown_table(table) for table in document.tables]
    lists = {
        "Published results": list_sources(document.tables),
        f"Failed runs: {len(document.failures)}": document.failures,
    }
    for title, lines in lists.items():
        if lines:
            items = [f"- {_escape_markdown_line(line)}" for line in lines]
            parts.append("\n".join([f"### {title}", "", *items]))
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
        lines.append(_markdown_row(f"**{cell}**" if row.bold and cell else cell for cell in cells))
    notes = [f"- {_escape_markdown_line(note)}" for note in table.footnotes()]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    escaped = re.sub(r"([|*<>\\`\[\]&~$#])", r"\\\1", " ".join(text.split()))
    # An underscore inside a word is no emphasis, and names read better without a backslash.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", escaped)


def _escape_markdown_line(text: str) -> str:
    """Escape also what would start a list or a rule at the beginning of a line."""
    return re.sub(r"^(\d*)([-+.)])(?=[-\s]|$)", r"\1\\\2", _escape_markdown(text))


def to_latex(document: Document) -> str:
    r"""The tables as booktabs floats to ``\input``.

    Nothing is bold, since the best may be so by chance. Published results by category are left
    out: they do not fit a page.
    """
    return "\n\n".join([LATEX_PREAMBLE, *map(_latex_table, document.tables)]) + "\n"


def _latex_table(table: Table) -> str:
    ours = [i for i, column in enumerate(table.columns) if column.source is None]
    table = table.select_columns(ours)
    height = max(len(column.heading) for column in table.columns)
    # Units stand in the last line.
    headings = [("",) * (height - len(c.heading)) + c.heading for c in table.columns]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(table.title)}}}",
        _FIT_WIDTH,
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
    ]
    for number, cells in enumerate(zip(*headings, strict=True)):
        lines.append(_latex_row([table.label if number == 0 else "", *cells]))
    for section in table.sections:
        if section:
            lines.append(r"\midrule")
        lines += [_latex_row([row.label, *row.cells]) for row in section]
    lines += [r"\bottomrule", r"\end{tabular}}", r"\par\smallskip\raggedright"]
    notes = (table.statement, *table.footnotes(), *list_sources([table]))
    return "\n".join([*lines, *(rf"{escape_latex(note)}\par" for note in notes), r"\end{table}"])


def _latex_row(cells: Iterable[str]) -> str:
    text = " & ".join(map(escape_latex, cells))
    # After a line break, "[" and "*" would be read as its option.
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"


def escape_latex(text: str) -> str:
    """The text with all LaTeX commands and ligatures made plain."""
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    # Two of these in a row would become one other character.
    escaped = re.sub(r"([-',])(?=\1)", r"\1{}", escaped)
    escaped = re.sub(r"(?<![\w.)}-])-(?=\d)", "$-$", escaped)
    return re.sub(
        "[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: rf"\textsuperscript{{{m[0].translate(_SUPERSCRIPTS)}}}", escaped
    )
