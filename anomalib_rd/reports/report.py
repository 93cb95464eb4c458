"""The report of many runs: printed, and written as CSV, Markdown, LaTeX and one image."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from anomalib_rd.errors import UserError
from anomalib_rd.reports.comparison_table import comparison_table
from anomalib_rd.reports.formatting import NO_REASON
from anomalib_rd.reports.heatmaps import FOLDER, heatmap_sheet
from anomalib_rd.reports.result_tables import (
    HEADLINE,
    one_run_per_category,
    overview_table,
    variant_table,
)
from anomalib_rd.reports.table_model import Document, Table
from anomalib_rd.reports.text_tables import print_document, to_latex, to_markdown
from anomalib_rd.results.files import one_line, write_atomically
from anomalib_rd.results.published import DATA, Published, load_published
from anomalib_rd.results.record import find_failures, parent_run
from anomalib_rd.results.runs_table import category_table, load_runs, to_long_format, write_csv
from anomalib_rd.results.statistics import compare_variants
from anomalib_rd.results.sweeps import failure_reason

SUMMARY, MEANS, COMPARISONS = "summary.csv", "means.csv", "comparisons.csv"
MARKDOWN, LATEX, SHEET = "table.md", "table.tex", "heatmaps.png"


@dataclass
class Report:
    """The report of many runs.

    Attributes:
        runs: of `load_runs`.
        compared: of `compare_variants`.
        failures: the folders of failed runs.
        document: the tables to write.
        printed: the tables to print.
        files: those written so far.
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
    """Write the tables of all complete runs into a folder and print them.

    Args:
        folders: runs, or folders that contain runs at any depth.
        out: where to write; default: the first folder.
        baseline: variant to compare with; see `compare_variants`.
        others: as for `read_report`.
        console: where to print; default: standard output.

    Raises:
        UserError: as for `read_report` and `write_report`; tables are printed if there are any.
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
    """Make the tables of all complete runs.

    Args:
        folders: runs, or folders that contain runs at any depth.
        baseline: variant to compare with; see `compare_variants`.
        others: print published results next to a single run too. They are always written, and
            always printed with several runs.

    Raises:
        UserError: no complete run, no such baseline, or an unreadable file.
    """
    runs, failures = load_runs(folders), find_failures(*folders)
    compared = compare_variants(runs, baseline)
    document = make_document(runs, compared, failures, load_published())
    single = runs["run"].map(parent_run).nunique() == 1
    printed = make_document(runs, compared, failures, {}) if single and not others else document
    return Report(runs, compared, failures, document, printed)


def make_document(
    runs: pd.DataFrame,
    compared: pd.DataFrame,
    failures: Sequence[Path],
    published: Mapping[str, Published],
) -> Document:
    """For each data set: overview and differences if there are several variants, then a table
    for each variant.

    Args:
        runs: of `load_runs`.
        compared: of `compare_variants`.
        failures: folders with ``failure.json``.
        published: of `load_published`; shown for data ``mvtec`` only.
    """
    tables: list[Table] = []
    summary = category_table(runs)
    for data, part in runs.groupby("data", sort=False):
        means = summary[summary["data"] == data]
        reported = published if data == DATA else {}
        variants = list(dict.fromkeys(part["variant"]))
        if len(variants) > 1:
            tables.append(overview_table(part, means, reported))
            headline = (compared["data"] == data) & compared["metric"].isin(HEADLINE)
            if headline.any():
                tables.append(comparison_table(compared[headline]))
        for variant in variants:
            own, own_means = part[part["variant"] == variant], means[means["variant"] == variant]
            tables.append(variant_table(own, own_means, reported, with_means=len(variants) == 1))
    lines = [f"{folder}: {failure_reason(folder) or NO_REASON}" for folder in failures]
    return Document(tables, lines)


def write_report(made: Report, folder: Path) -> None:
    """Write the report into a folder, each file atomically.

    ``summary.csv`` (a row for each run and metric), ``means.csv`` (`category_table`),
    ``comparisons.csv`` if there are several variants (`compare_variants`; all in fractions),
    ``table.md``, ``table.tex``, and ``heatmaps.png`` if the runs have heatmaps.

    Raises:
        UserError: the folder cannot be written, or a heatmap cannot be read.
    """
    comparisons = folder / COMPARISONS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if made.compared.empty:  # an earlier report may have had several variants
            comparisons.unlink(missing_ok=True)
        files = [
            write_csv(to_long_format(made.runs), folder / SUMMARY),
            write_csv(category_table(made.runs), folder / MEANS),
            *([] if made.compared.empty else [write_csv(made.compared, comparisons)]),
            _write_text(folder / MARKDOWN, to_markdown(made.document)),
            _write_text(folder / LATEX, to_latex(made.document)),
        ]
        sheet_runs, title = _choose_sheet_runs(made.runs)
        sheet = heatmap_sheet(sheet_runs, folder / SHEET, title)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write the report ({one_line(error)}); choose another --out"
        ) from error
    made.files = [*files, *([] if sheet is None else [sheet])]


def print_report(made: Report, console: Console | None = None) -> None:
    """Print the tables and the names of the written files; default: on standard output."""
    # Into a file or pipe rich would assume 80 columns, too few for published results.
    console = console or Console(width=None if sys.stdout.isatty() else 100)
    print_document(made.printed, console)
    if made.files:
        names = ", ".join(path.name for path in made.files)
        line = f"Written to {made.files[0].parent}: {names}"
        console.print(Text(line, overflow="fold"), soft_wrap=True)


def show(run: Path | str, console: Console | None = None) -> None:
    """Print the table of one complete run without published results; errors as for `report`."""
    print_report(read_report([run]), console)


def _write_text(path: Path, text: str) -> Path:
    return write_atomically(path, lambda file: file.write(text.encode()))


def _choose_sheet_runs(runs: pd.DataFrame) -> tuple[list[str], str]:
    """A run for each category, of the first variant with heatmaps and its lowest seed; a title."""
    drawn = runs[[any(Path(run, FOLDER).glob("*.png")) for run in runs["run"]]]
    if drawn.empty:
        return [], ""
    first = drawn.iloc[0]
    same = drawn[(drawn["data"] == first["data"]) & (drawn["variant"] == first["variant"])]
    chosen = one_run_per_category(same)
    seeds = ", ".join(map(str, sorted(chosen["seed"].unique())))
    return chosen["run"].tolist(), f"{first['variant']} on {first['data']}, seed {seeds}"
