"""``anomalib-rd report``: sum up runs on disk."""

import argparse
from pathlib import Path


def run(words: list[str]) -> int:
    """Print the table of the runs in folders and write it beside them."""
    parser = argparse.ArgumentParser(
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
    options = parser.parse_args(words)
    from anomalib_rd.reports.report import report

    report(options.folders, out=options.out, baseline=options.baseline)
    return 0
