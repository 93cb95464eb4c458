"""All figures of the runs in folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from anomalib_rd.errors import UserError
from anomalib_rd.reports.figures.charts import (
    colour_scales,
    draw_bars,
    draw_differences,
    draw_matrix,
)
from anomalib_rd.reports.figures.curves import KINDS, cached_curves, curve_figure
from anomalib_rd.reports.figures.gallery import ROWS, pictures, sheet
from anomalib_rd.reports.figures.style import file_name, save, style
from anomalib_rd.reports.tables import HEADLINE, undefined_reasons
from anomalib_rd.results.files import one_line
from anomalib_rd.results.gallery import has_gallery
from anomalib_rd.results.statistics import compare_variants
from anomalib_rd.results.table import category_table, drop_repeats, load_runs, metric_columns

FIGURES = "figures"
Named = tuple[str, Figure]


def write_figures(
    folders: Sequence[Path | str], out: Path | str | None = None, baseline: str | None = None
) -> list[Path]:
    """Writes PDF and PNG of each figure into ``<out>/figures``, each atomically.

    For each data: ``matrix`` of each variant, ``bars`` of the headline metrics, a figure for
    each kind of curve, ``differences`` to the baseline, and ``gallery`` of each variant whose
    runs left one. What no run has is not drawn; what some lack is blank, with a note.

    Args:
        folders: runs, or folders that hold runs at any depth.
        out: where to make the folder; in the first folder if None.
        baseline: the variant that the others are compared with; see `compare_variants`.

    Raises:
        UserError: no complete run, no such baseline, a file that cannot be read, or a folder
            that cannot be written.
    """
    runs = load_runs(folders)
    compared = compare_variants(runs, baseline)
    runs = drop_repeats(runs)
    folder = Path(out if out is not None else folders[0]) / FIGURES
    taken: set[str] = set()
    written: list[Path] = []
    with style():
        for data, part in runs.groupby("data", sort=False):
            prefix = f"{data}-" if runs["data"].nunique() > 1 else ""
            for name, figure in _figures(str(data), part, compared[compared["data"] == data]):
                written += _save(figure, folder, file_name(f"{prefix}{name}", taken))
    return written


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return save(figure, folder / name)
    except OSError as error:
        raise UserError(
            f"{folder}: the figures cannot be written ({one_line(error)}); "
            "give a folder that can be with --out"
        ) from error


def _figures(data: str, runs: pd.DataFrame, compared: pd.DataFrame) -> Iterator[Named]:
    """The figures of one data, made one at a time."""
    summary = category_table(runs)
    metrics = [m for m in metric_columns(runs) if runs[m].notna().any()]
    headline = [m for m in HEADLINE if m in metrics] or metrics[:3]
    seeds = runs["seed"].nunique()
    over = f"mean ± std over {seeds} seeds" if seeds > 1 else f"seed {runs['seed'].iloc[0]}"
    alone = f"{runs['variant'].iloc[0]} on " if runs["variant"].nunique() == 1 else ""
    if metrics:
        scales = colour_scales(summary, metrics)
        note = ["Colours: each column from its lowest to its highest category, over all variants."]
        for variant, own in summary.groupby("variant", sort=False):
            notes = note + _undefined(runs[runs["variant"] == variant], metrics)
            title = f"{variant} on {data}, %, {over}"
            yield f"matrix-{variant}", draw_matrix(own, metrics, scales, title, notes)
        title = f"{alone}{data}, {over}"
        yield "bars", draw_bars(summary, headline, title, _undefined(runs, headline, "Crosses"))
    curves = cached_curves()
    for kind in KINDS:
        figure = curve_figure(runs, kind, curves, f"{alone}{data}")
        if figure is not None:
            yield f"curves-{kind.name}", figure
    shown = [m for m in headline if m in set(compared["metric"])]
    if shown:
        rows = compared[compared["metric"].isin(shown)]
        title = f"Differences to {rows['baseline'].iloc[0]} on {data}"
        yield "differences", draw_differences(rows, shown, title)
    yield from _galleries(data, runs)


def _galleries(data: str, runs: pd.DataFrame) -> Iterator[Named]:
    """The lowest seed with a gallery of each category, in pages."""
    with_gallery = runs[[has_gallery(run) for run in runs["run"]]]
    for variant, own in with_gallery.groupby("variant", sort=False):
        one_each = own.sort_values("seed", kind="stable").drop_duplicates("category")
        ordered = one_each.assign(object=one_each["group"] != "texture").sort_values(
            ["object", "category"]
        )
        for page, start in enumerate(range(0, len(ordered), ROWS), start=1):
            part = ordered.iloc[start : start + ROWS]
            rows = [
                (str(category), pictures(run))
                for category, run in zip(part["category"], part["run"], strict=True)
            ]
            seeds = ", ".join(map(str, sorted(part["seed"].unique())))
            name = f"gallery-{variant}" + (f"-{page}" if len(ordered) > ROWS else "")
            yield name, sheet(rows, f"{variant} on {data}, seed {seeds}")


def _undefined(runs: pd.DataFrame, metrics: Sequence[str], how: str = "Blank") -> list[str]:
    """Why cells of these metrics are blank, one line for each kind of reason."""
    why = undefined_reasons(runs).items()
    texts = dict.fromkeys(text for (_, metric), text in why if metric in metrics)
    return [f"{how}: {text}; means are over the rest." for text in texts]
