"""The report of many runs: printed, and written as CSV, Markdown, LaTeX and one picture."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from anomalib_rd.errors import UserError
from anomalib_rd.reports.comparison_table import comparison_table
from anomalib_rd.reports.heatmaps import FOLDER, heatmap_sheet
from anomalib_rd.reports.layout import Document, Table
from anomalib_rd.reports.render import print_document, to_latex, to_markdown
from anomalib_rd.reports.tables import HEADLINE, overview_table, variant_table
from anomalib_rd.results.files import one_line, write_atomically
from anomalib_rd.results.published import DATA, Published, load_published
from anomalib_rd.results.record import find_failures, parent_run, read_failure
from anomalib_rd.results.statistics import compare_variants
from anomalib_rd.results.table import category_table, load_runs, to_long_format, write_csv

SUMMARY, MEANS, COMPARISONS = "summary.csv", "means.csv", "comparisons.csv"
MARKDOWN, LATEX, SHEET = "table.md", "table.tex", "heatmaps.png"


@dataclass
class Report:
    """The report of many runs.

    Attributes:
        runs: of `load_runs`.
        compared: of `compare_variants`.
        failures: the folders of the runs that failed.
        document: what is written.
        printed: what is printed.
        files: those that are written so far.
    """

    runs: pd.DataFrame
    compared: pd.DataFrame
    failures: list[Path]
    document: Document
    printed: Document
    files: list[Path] = field(default_factory=list)


def report(
    folders: Sequence[Path | str],
    out: Path | str | None = None,
    baseline: str | None = None,
    others: bool = False,
    console: Console | None = None,
) -> Report:
    """Writes the tables of all complete runs into a folder and prints them.

    Args:
        folders: runs, or folders that hold runs at any depth.
        out: where to write; the first folder if None.
        baseline: the variant that the others are compared with; see `compare_variants`.
        others: as for `read_report`.
        console: where to print; standard output if None.

    Raises:
        UserError: as for `read_report` and `write_report`; what can be printed is printed.
    """
    made = read_report(folders, baseline, others)
    try:
        write_report(made, Path(out if out is not None else folders[0]))
    finally:
        print_report(made, console)
    return made


def read_report(
    folders: Sequence[Path | str], baseline: str | None = None, others: bool = False
) -> Report:
    """Makes the tables of all complete runs.

    Args:
        folders: runs, or folders that hold runs at any depth.
        baseline: the variant that the others are compared with; see `compare_variants`.
        others: print what others report of its category beside a single run too; the files, and
            what is printed of several runs, always have it.

    Raises:
        UserError: no complete run, no such baseline, or a file that cannot be read.
    """
    runs, failures = load_runs(folders), find_failures(*folders)
    compared = compare_variants(runs, baseline)
    document = make_document(runs, compared, failures, load_published())
    single = runs["run"].map(parent_run).nunique() == 1
    printed = make_document(runs, compared, failures, {}) if single and not others else document
    return Report(runs, compared, failures, document, printed)


def write_report(made: Report, folder: Path) -> None:
    """Writes the report into a folder, each file atomically.

    ``summary.csv`` (long: a row for each run and metric), ``means.csv`` (long: `category_table`),
    ``comparisons.csv`` if there are several variants (long: `compare_variants`; values of all
    three are fractions), ``table.md``, ``table.tex``, and ``heatmaps.png`` if the runs have
    heatmaps.

    Raises:
        UserError: the folder cannot be written, or a heatmap cannot be read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [
            write_csv(to_long_format(made.runs), folder / SUMMARY),
            write_csv(category_table(made.runs), folder / MEANS),
            *_write_comparisons(made.compared, folder / COMPARISONS),
            _write_text(folder / MARKDOWN, to_markdown(made.document)),
            _write_text(folder / LATEX, to_latex(made.document)),
        ]
        chosen, title = _for_the_sheet(made.runs)
        sheet = heatmap_sheet(chosen, folder / SHEET, title)
    except OSError as error:
        raise UserError(
            f"{folder}: the report cannot be written ({one_line(error)}); "
            "give a folder that can be with out"
        ) from error
    made.files = [*files, *([] if sheet is None else [sheet])]


def print_report(made: Report, console: Console | None = None) -> None:
    """Prints the tables and what was written; on standard output if there is no console."""
    console = console or _console()
    print_document(made.printed, console)
    if made.files:
        names = ", ".join(path.name for path in made.files)
        line = f"Written to {made.files[0].parent}: {names}"
        console.print(Text(line, overflow="fold"), soft_wrap=True)


def show(run: Path | str, console: Console | None = None) -> None:
    """Prints the table of one complete run, without what others report; errors as for `report`."""
    print_report(read_report([run]), console)


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


def make_document(
    runs: pd.DataFrame,
    compared: pd.DataFrame,
    failures: Sequence[Path],
    published: Mapping[str, Published],
) -> Document:
    """For each data an overview and the differences to the baseline, if there are several
    variants, then one table for each variant.

    Args:
        runs: of `load_runs`.
        compared: of `compare_variants`.
        failures: folders with ``failure.json``.
        published: of `load_published`; shown beside the same categories of data ``mvtec`` only.
    """
    tables: list[Table] = []
    summary = category_table(runs)
    for data, part in runs.groupby("data", sort=False):
        of_data = summary[summary["data"] == data]
        beside = published if data == DATA else {}
        variants = list(dict.fromkeys(part["variant"]))
        if len(variants) > 1:
            tables.append(overview_table(part, of_data, beside))
            headline = (compared["data"] == data) & compared["metric"].isin(HEADLINE)
            differences = compared[headline]
            if len(differences):
                tables.append(comparison_table(differences))
        for variant in variants:
            chosen = part["variant"] == variant
            alone = len(variants) == 1
            tables.append(
                variant_table(part[chosen], of_data[of_data["variant"] == variant], beside, alone)
            )
    return Document(tables, [_failure_line(folder) for folder in failures])


def _failure_line(folder: Path) -> str:
    try:
        error = " ".join(str(read_failure(folder).get("error", "")).split())
    except UserError:
        error = "its failure.json cannot be read"
    return f"{folder}: {error or 'no message on record'}"
