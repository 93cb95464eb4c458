"""The report as LaTeX (booktabs)."""

import re
from collections.abc import Iterable

from anomalib_rd.reports.layout import OTHER_PRO, Document, Table, sources

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
    return "\n\n".join([PREAMBLE, *map(_table, document.tables)]) + "\n"


def escape(text: str) -> str:
    """The text with all that LaTeX would read as a command made plain."""
    escaped = "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))
    escaped = escaped.replace("$<$=", r"$\leq$")
    # Two of these in a row would become one other character.
    escaped = re.sub(r"([-',])(?=\1)", r"\1{}", escaped)
    escaped = re.sub(r"(?<![\w.)}-])-(?=\d)", "$-$", escaped)
    return re.sub(
        "[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: rf"\textsuperscript{{{m[0].translate(_SUPERSCRIPTS)}}}", escaped
    )


def _table(table: Table) -> str:
    ours = table.keep([i for i, column in enumerate(table.columns) if column.source is None])
    height = max(len(column.heading) for column in ours.columns)
    # Headings in lines, the unit always in the last.
    stacked = [("",) * (height - len(c.heading)) + c.heading for c in ours.columns]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(ours.title)}}}",
        _FITTED,
        rf"\begin{{tabular}}{{l{'r' * len(ours.columns)}}}",
        r"\toprule",
    ]
    for number, heading in enumerate(zip(*stacked, strict=True)):
        lines.append(_line([ours.label if number == 0 else "", *heading]))
    for section in ours.sections:
        if section:
            lines.append(r"\midrule")
        lines += [_line([row.label, *row.cells]) for row in section]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines.append(r"\par\smallskip\raggedright")
    lines += [rf"{escape(n)}\par" for n in (ours.statement, *ours.footnotes(), *sources([ours]))]
    return "\n".join([*lines, r"\end{table}"])


def _line(cells: Iterable[str]) -> str:
    text = " & ".join(escape(cell) for cell in cells)
    # After the row before, "[" and "*" would be read as an option of its line break.
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"
