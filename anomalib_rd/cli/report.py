"""``anomalib-rd report``: tables, figures and the report page of runs on disk."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_rd.cli.common import Parser
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.reports.report import Report


def add_arguments(parser: Parser) -> None:
    """Add the options of the command."""
    parser.describe(
        "Compare all runs in the given folders. Prints a table per category next to published "
        "numbers, differences to a baseline and whether they are significant, and writes it as "
        "text, CSV, Markdown and LaTeX with a sheet of heatmaps. Exit status 1 if a record is "
        "damaged.",
        "multirun/mine",
        "multirun/mine --html --figures --out report",
        "runs/a runs/b --baseline rd4ad",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="runs, sweeps, or parents of them")
    parser.add_argument("--out", type=Path, help="output folder (default: the first folder)")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="variant to compare with, or a unique part of its name (default: the first of model "
        "rd4ad, else the first)",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="print published numbers for a single run too; with several runs and in the files "
        "they are always included",
    )
    parser.add_argument(
        "--figures", action="store_true", help="also draw figures for a paper, as PDF and PNG"
    )
    parser.add_argument(
        "--html", action="store_true", help="also write report.html, a page with plots and images"
    )
    parser.add_argument(
        "--wandb", action="store_true", help="update the sweep's summary run in W&B"
    )
    parser.add_argument("--project", help="with --wandb: project (default: that of the runs)")
    parser.add_argument("--entity", help="with --wandb: team or user (default: that of the runs)")
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """Print and write the report.

    Returns:
        1 if a record is damaged or W&B did not accept the summary, else 0.
    """
    folders, baseline = options.folders, options.baseline
    if options.wandb and len(folders) > 1:
        raise UserError("report: --wandb takes one sweep: give one folder")
    if not options.wandb and (options.project or options.entity):
        raise UserError("report: --project and --entity require --wandb")
    from anomalib_rd.reports.page import PAGE, build_page
    from anomalib_rd.reports.report import print_report, read_report, write_report
    from anomalib_rd.results.record import find_unreadable

    out = options.out or folders[0]
    report = read_report(folders, baseline, options.published)
    lines = []
    # Printing comes last: the reader may close the pipe after a line.
    try:
        write_report(report, out)
        if options.figures:
            from anomalib_rd.reports.figures import FIGURES, write_figures

            files = write_figures(folders, options.out, baseline)
            names = ", ".join(path.name for path in files) or "none, no metric is defined"
            lines.append(f"Figures in {out / FIGURES}: {names}")
        if options.html:
            lines.append(f"Page: {build_page(folders, out / PAGE, baseline)}")
    finally:
        print_report(report)
        for line in lines:
            print(line)
    status = 1 if find_unreadable(*folders) else 0
    if options.wandb:
        status = max(status, _log_to_wandb(report, folders[0], options.project, options.entity))
    return status


def _log_to_wandb(report: "Report", sweep: Path, project: str | None, entity: str | None) -> int:
    """Log the summary run of a sweep; 1 if W&B did not accept it, else 0."""
    from anomalib_rd.results.record import RESULT
    from anomalib_rd.tracking.sweep_summary import (
        find_destination,
        log_summary,
        override_destination,
    )

    if (sweep / RESULT).is_file():
        raise UserError(f"{sweep}: a single run, which W&B already has; give a sweep's folder")
    target = override_destination(find_destination(report.runs), project, entity)
    if target is None:
        raise UserError(f"{sweep}: none of its runs logged to W&B; choose one with --project NAME")
    url = log_summary(report, sweep, target)
    if url is None:
        print("anomalib-rd: no summary run: W&B is disabled or did not accept it", file=sys.stderr)
        return 1
    print(f"W&B: summary run in {url}")
    return 0


def write_report_page(folder: Path) -> str:
    """Write ``report.html`` into a run's or a sweep's folder; returns the line to print.

    Errors are printed as one line, because the results are on disk already.
    """
    from anomalib_rd.cli.errors import error_line
    from anomalib_rd.reports.page import PAGE, build_page

    try:
        return f"Page: {build_page([folder], folder / PAGE)}"
    except Exception as error:
        print(f"anomalib-rd: no page: {error_line(error)}", file=sys.stderr)
        return ""
