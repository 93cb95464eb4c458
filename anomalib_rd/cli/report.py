"""``anomalib-rd report``: tables, figures and the report page of runs on disk."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_rd.cli.common import Parser
from anomalib_rd.cli.errors import explain
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.reports.report import Report


def run(words: list[str]) -> int:
    """Print the table of the runs in folders and write it beside them.

    Returns:
        1 if a record cannot be read, or W&B did not take the summary, else 0.
    """
    parser = Parser(
        prog="anomalib-rd report",
        description="Table per category beside published numbers, differences to a baseline and "
        "whether they are noise, as text, CSV, Markdown and LaTeX, and a sheet of heatmaps, of "
        "every run found in the folders.",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="runs, sweeps, or folders of them")
    parser.add_argument("--out", type=Path, help="where to write; default: the first folder")
    parser.add_argument(
        "--baseline",
        help="the variant to compare with, or words that only its name holds; "
        "default: the first of model rd4ad, else the first",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="print what others report of the category beside a single run too; beside several "
        "runs, and in the files, it always stands",
    )
    parser.add_argument(
        "--wandb", action="store_true", help="bring the sweep's summary run in W&B up to date"
    )
    parser.add_argument("--project", help="with --wandb: the project; default: the runs' own")
    parser.add_argument("--entity", help="with --wandb: its owner; default: the runs' own")
    parser.add_argument(
        "--figures", action="store_true", help="also draw figures for a paper, as PDF and PNG"
    )
    parser.add_argument(
        "--html", action="store_true", help="also write report.html, a page with plots and images"
    )
    options = parser.parse_args(words)
    if options.wandb and len(options.folders) > 1:
        parser.error("--wandb sums up one sweep: give one folder")
    if not options.wandb and (options.project or options.entity):
        parser.error("--project and --entity go with --wandb")
    from anomalib_rd.reports.report import print_report, read_report, write_report
    from anomalib_rd.results.record import find_unreadable

    folders, baseline = options.folders, options.baseline
    made = read_report(folders, baseline, options.published)
    lines = []
    # Printing comes last: whoever reads may have enough after a line, and close the pipe.
    try:
        write_report(made, options.out or folders[0])
        if options.figures:
            lines.append(draw(folders, options.out, baseline))
        if options.html:
            lines.append(write_html(folders, options.out, baseline))
    finally:
        print_report(made)
        for line in lines:
            print(line)
    status = 1 if find_unreadable(*folders) else 0
    if options.wandb:
        status = max(status, to_wandb(made, folders[0], options.project, options.entity))
    return status


def to_wandb(made: "Report", sweep: Path, project: str | None, entity: str | None) -> int:
    """Log the summary run of a sweep, and say where it is; 1 if W&B did not take it, else 0."""
    from anomalib_rd.results.record import RESULT
    from anomalib_rd.tracking.sweep_summary import (
        find_destination,
        log_summary,
        override_destination,
    )

    if (sweep / RESULT).is_file():
        raise UserError(f"{sweep}: one run, which W&B has by itself; give a sweep's folder")
    place = override_destination(find_destination(made.runs), project, entity)
    if place is None:
        raise UserError(f"{sweep}: no run in it logged to W&B; say where to with --project NAME")
    where = log_summary(made, sweep, place)
    if where is None:
        print("anomalib-rd: no summary run: W&B is disabled or did not take it", file=sys.stderr)
        return 1
    print(f"W&B: summary run in {where}")
    return 0


def write_html(folders: list[Path], out: Path | None, baseline: str | None) -> str:
    """Write the page; returns a line that says where it is."""
    from anomalib_rd.reports.dashboard import PAGE, build_page

    return f"Page: {build_page(folders, (out or folders[0]) / PAGE, baseline)}"


def draw(folders: list[Path], out: Path | None, baseline: str | None) -> str:
    """Write the figures; returns a line that says where they are."""
    from anomalib_rd.reports.figures import FIGURES, write_figures

    files = write_figures(folders, out, baseline)
    names = ", ".join(path.name for path in files) or "none, no metric is defined"
    return f"Figures in {(out or folders[0]) / FIGURES}: {names}"


def write_report_page(folder: Path) -> str:
    """Write ``report.html`` into a run's or a sweep's folder; returns a line that says where.

    What hinders it is one line: the results are on disk, and are not to be lost to a page.
    """
    from anomalib_rd.reports.dashboard import PAGE, build_page

    try:
        return f"Page: {build_page([folder], folder / PAGE)}"
    except Exception as error:
        line = explain(error) or f"{type(error).__name__}: {error}"
        print(f"anomalib-rd: no page: {line}", file=sys.stderr)
        return ""
