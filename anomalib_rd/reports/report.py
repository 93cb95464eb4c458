"""The report of many runs: printed, and written as CSV, Markdown, LaTeX and one picture."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from anomalib_rd.errors import UserError
from anomalib_rd.reports.document import make_document
from anomalib_rd.reports.heatmaps import FOLDER
from anomalib_rd.reports.latex import to_latex
from anomalib_rd.reports.markdown import to_markdown
from anomalib_rd.reports.sheet import heatmap_sheet
from anomalib_rd.reports.terminal import print_document
from anomalib_rd.results.comparison import compare_variants
from anomalib_rd.results.files import one_line, write_atomically
from anomalib_rd.results.published import load_published
from anomalib_rd.results.record import find_failures
from anomalib_rd.results.table import category_table, load_runs, runs_long, write_csv

SUMMARY, MEANS, COMPARISONS = "summary.csv", "means.csv", "comparisons.csv"
MARKDOWN, LATEX, SHEET = "table.md", "table.tex", "heatmaps.png"


@dataclass(frozen=True)
class Report:
    """What `report` made: the table of runs, the files written, and the runs that failed."""

    runs: pd.DataFrame
    files: list[Path]
    failures: list[Path]


def show(folders: Sequence[Path | str], console: Console | None = None) -> None:
    """Prints the tables of all complete runs; arguments and errors as for `report`."""
    runs, failures = load_runs(folders), find_failures(*folders)
    document = make_document(runs, compare_variants(runs), failures, load_published())
    print_document(document, console or _console())


def report(
    folders: Sequence[Path | str],
    out: Path | str | None = None,
    baseline: str | None = None,
    console: Console | None = None,
) -> Report:
    """Prints the tables of all complete runs and writes them into a folder.

    Written, each atomically: ``summary.csv`` (long: a row for each run and metric),
    ``means.csv`` (long: `category_table`), ``comparisons.csv`` if there are several variants
    (long: `compare_variants`; values of all three are fractions), ``table.md``, ``table.tex``,
    and ``heatmaps.png`` if the runs have heatmaps.

    Args:
        folders: runs, or folders that hold runs at any depth.
        out: where to write; the first folder if None.
        baseline: the variant that the others are compared with; see `compare_variants`.
        console: where to print; standard output if None.

    Raises:
        UserError: no complete run, no such baseline, a file that cannot be read, or a folder
            that cannot be written.
    """
    runs, failures = load_runs(folders), find_failures(*folders)
    compared = compare_variants(runs, baseline)
    document = make_document(runs, compared, failures, load_published())
    console = console or _console()
    print_document(document, console)
    folder = Path(out if out is not None else folders[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [
            write_csv(runs_long(runs), folder / SUMMARY),
            write_csv(category_table(runs), folder / MEANS),
            *_write_comparisons(compared, folder / COMPARISONS),
            _write_text(folder / MARKDOWN, to_markdown(document)),
            _write_text(folder / LATEX, to_latex(document)),
        ]
        chosen, title = _for_the_sheet(runs)
        sheet = heatmap_sheet(chosen, folder / SHEET, title)
    except OSError as error:
        raise UserError(
            f"{folder}: the report cannot be written ({one_line(error)}); "
            "give a folder that can be with out"
        ) from error
    if sheet is not None:
        files.append(sheet)
    names = ", ".join(path.name for path in files)
    console.print(Text(f"Written to {folder}: {names}", overflow="fold"), soft_wrap=True)
    return Report(runs, files, failures)


def _console() -> Console:
    # Into a file or pipe rich would assume 80 columns, too few for the reported numbers.
    return Console(width=None if sys.stdout.isatty() else 100)


def _write_text(path: Path, text: str) -> Path:
    return write_atomically(path, lambda file: file.write(text.encode()))


def _write_comparisons(compared: pd.DataFrame, path: Path) -> list[Path]:
    if len(compared):
        return [write_csv(compared, path)]
    # An earlier report's would speak of runs that are no more.
    path.unlink(missing_ok=True)
    return []


def _for_the_sheet(runs: pd.DataFrame) -> tuple[list[str], str]:
    """One run for each category, of the first variant with heatmaps and its lowest seed."""
    drawn = runs[[any(Path(run, FOLDER).glob("*.png")) for run in runs["run"]]]
    if drawn.empty:
        return [], ""
    first = drawn.iloc[0]
    same = drawn[(drawn["data"] == first["data"]) & (drawn["variant"] == first["variant"])]
    one_each = same.sort_values("seed", kind="stable").drop_duplicates("category")
    ordered = one_each.assign(object=one_each["group"] != "texture").sort_values(
        ["object", "category"]
    )
    seeds = ", ".join(map(str, sorted(ordered["seed"].unique())))
    return ordered["run"].tolist(), f"{first['variant']} on {first['data']}, seed {seeds}"
