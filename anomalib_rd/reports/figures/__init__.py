"""Figures for a paper as PDF and PNG, from the files of runs; needs no display."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from anomalib_rd.errors import UserError
from anomalib_rd.reports.figures.charts import (
    color_ranges,
    draw_bars,
    draw_differences,
    draw_matrix,
)
from anomalib_rd.reports.figures.curves import KINDS, cache_curves, draw_curves
from anomalib_rd.reports.figures.gallery import ROWS, draw_gallery, read_examples
from anomalib_rd.reports.figures.style import make_file_name, paper_style, save
from anomalib_rd.reports.result_tables import HEADLINE, one_run_per_category, undefined_reasons
from anomalib_rd.results.files import one_line
from anomalib_rd.results.gallery import has_gallery
from anomalib_rd.results.runs_table import category_table, drop_repeats, load_runs, metric_columns
from anomalib_rd.results.statistics import compare_variants

FIGURES = "figures"


def write_figures(
    folders: Sequence[Path | str], out: Path | str | None = None, baseline: str | None = None
) -> list[Path]:
    """Write PDF and PNG of each figure into ``<out>/figures``, each atomically.

    For each data set: ``matrix`` of each variant, ``bars`` of the headline metrics, a figure of
    each kind of curve, ``differences`` to the baseline, and ``gallery`` of each variant with
    saved images. What is undefined in some runs is blank, with a note.

    Args:
        folders: runs, or folders that contain runs at any depth.
        out: parent of the folder; default: the first folder.
        baseline: variant to compare with; see `compare_variants`.

    Raises:
        UserError: no complete run, no such baseline, an unreadable file, or a folder that cannot
            be written.
    """
    runs = load_runs(folders)
    compared = compare_variants(runs, baseline)
    runs = drop_repeats(runs)
    folder = Path(out if out is not None else folders[0]) / FIGURES
    taken: set[str] = set()
    files: list[Path] = []
    with paper_style():
        for data, part in runs.groupby("data", sort=False):
            prefix = f"{data}-" if runs["data"].nunique() > 1 else ""
            for name, figure in _figures(str(data), part, compared[compared["data"] == data]):
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    files += save(figure, folder / make_file_name(f"{prefix}{name}", taken))
                except OSError as error:
                    raise UserError(
                        f"{folder}: cannot write figures ({one_line(error)}); choose another --out"
                    ) from error
    return files


def describe_seeds(runs: pd.DataFrame) -> str:
    """What the values are means over."""
    seeds = runs["seed"].nunique()
    return f"mean ± std over {seeds} seeds" if seeds > 1 else f"seed {runs['seed'].iloc[0]}"


def _figures(data: str, runs: pd.DataFrame, compared: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """The figures of one data set with their names, made one at a time."""
    summary = category_table(runs)
    metrics = [m for m in metric_columns(runs) if runs[m].notna().any()]
    headline = [m for m in HEADLINE if m in metrics] or metrics[:3]
    only = f"{runs['variant'].iloc[0]} on " if runs["variant"].nunique() == 1 else ""
    if metrics:
        ranges = color_ranges(summary, metrics)
        note = "Colours: from the lowest to the highest category of a metric, over all variants."
        for variant, own in summary.groupby("variant", sort=False):
            undefined = _undefined_notes(runs[runs["variant"] == variant], metrics, "Blank")
            title = f"{variant} on {data}, %, {describe_seeds(runs)}"
            yield f"matrix-{variant}", draw_matrix(own, metrics, ranges, title, [note, *undefined])
        undefined = _undefined_notes(runs, headline, "Crosses")
        title = f"{only}{data}, {describe_seeds(runs)}"
        yield "bars", draw_bars(summary, headline, title, undefined)
    read_curves = cache_curves()
    for kind in KINDS:
        figure = draw_curves(runs, kind, read_curves, f"{only}{data}")
        if figure is not None:
            yield f"curves-{kind.name}", figure
    rows = compared[compared["metric"].isin(headline)]
    if len(rows):
        title = f"Differences to {rows['baseline'].iloc[0]} on {data}"
        yield "differences", draw_differences(rows, title)
    yield from _galleries(data, runs)


def _galleries(data: str, runs: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Pages with a run of each category that has a gallery."""
    with_gallery = runs[[has_gallery(run) for run in runs["run"]]]
    for variant, own in with_gallery.groupby("variant", sort=False):
        chosen = one_run_per_category(own)
        for start in range(0, len(chosen), ROWS):
            part = chosen.iloc[start : start + ROWS]
            rows = [
                (str(category), read_examples(run))
                for category, run in zip(part["category"], part["run"], strict=True)
            ]
            seeds = ", ".join(map(str, sorted(part["seed"].unique())))
            page = f"-{start // ROWS + 1}" if len(chosen) > ROWS else ""
            yield (
                f"gallery-{variant}{page}",
                draw_gallery(rows, f"{variant} on {data}, seed {seeds}"),
            )


def _undefined_notes(runs: pd.DataFrame, metrics: Sequence[str], mark: str) -> list[str]:
    """Why some of these metrics are undefined, one line for each kind of reason."""
    reasons = undefined_reasons(runs).items()
    texts = dict.fromkeys(text for (_, metric), text in reasons if metric in metrics)
    return [f"{mark}: {text}; means are over the rest." for text in texts]
