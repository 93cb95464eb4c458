"""Charts of metrics: bars, differences to the baseline, and a heat table of a variant."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from anomalib_rd.reports.figures.style import (
    COLOURS,
    WIDTH,
    add_legend_and_notes,
    colour,
    hatch,
    set_title,
    shorten,
    wrap,
)
from anomalib_rd.reports.result_tables import metric_heading, metric_name
from anomalib_rd.results.runs_table import GROUPS, MEAN_ALL

BARS_PER_ROW = 100
# Light enough for dark text.
LIGHT_BLUES = LinearSegmentedColormap.from_list("light", colormaps["Blues"](np.linspace(0.03, 0.6)))


def draw_bars(
    summary: pd.DataFrame, metrics: Sequence[str], title: str, notes: Sequence[str]
) -> Figure:
    """A panel for each metric, a group for each category, a bar for each variant.

    Bars are means over seeds, with the standard deviation over seeds as error bars.

    Args:
        summary: rows of `category_table` on one data set.
        metrics: of the panels.
        title: first line.
        notes: small print.
    """
    variants = list(dict.fromkeys(summary["variant"]))
    names = list(dict.fromkeys(summary["category"][summary["kind"] == "category"]))
    labels = [*names, MEAN_ALL] if len(names) > 1 else names
    per_row = max(1, BARS_PER_ROW // len(variants))
    chunks = [labels[i : i + per_row] for i in range(0, len(labels), per_row)]
    width = min(WIDTH, max(3.5, 0.6 + len(chunks[0]) * max(0.25, 0.1 * len(variants))))
    figure = Figure(figsize=(width, len(chunks) * (1.35 * len(metrics) + 0.75) + 0.5))
    panels = figure.subplots(len(chunks) * len(metrics), 1, squeeze=False)[:, 0]
    table = summary.set_index(["metric", "variant", "category"])
    handles: list[object] = []
    for index, axes in enumerate(panels):
        chunk, metric = chunks[index // len(metrics)], metrics[index % len(metrics)]
        values = pd.DataFrame(table.loc[metric])
        handles = [_draw_bars(axes, values, variants, i, chunk) for i in range(len(variants))]
        if MEAN_ALL in chunk:
            axes.axvline(len(chunk) - 1.5, color="grey", linewidth=0.5)
        start = _set_bar_range(axes, values)
        axes.set_ylabel(f"{metric_name(metric)}, %" + (f"\n(from {start:g})" if start else ""))
        # Only the last metric of a chunk has names.
        last = index % len(metrics) == len(metrics) - 1
        ticks = [shorten(name, 20) for name in chunk] if last else []
        axes.set_xticks(range(len(ticks)), ticks, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.6, len(chunk) - 0.4)
    set_title(figure, title)
    add_legend_and_notes(figure, notes, handles, variants)
    return figure


def _draw_bars(
    axes: Axes, table: pd.DataFrame, variants: Sequence[str], index: int, names: Sequence[str]
) -> object:
    """A variant's bars of a metric; a cross on the axis where it is undefined."""
    own = pd.DataFrame(table.loc[variants[index]]).reindex(list(names))
    mean, std = 100 * own["mean"].to_numpy(), 100 * own["std"].to_numpy()
    width = 0.84 / len(variants)
    x = np.arange(len(names)) + (index - (len(variants) - 1) / 2) * width
    style: dict[str, Any] = {"color": colour(index), "hatch": hatch(index)}
    bars = axes.bar(x, mean, 0.92 * width, edgecolor="white", linewidth=0.3, **style)
    known = ~np.isnan(std)
    axes.errorbar(x[known], mean[known], std[known], fmt="none", ecolor="black", elinewidth=0.6)
    missing = x[np.isnan(mean)]
    heights = np.full(len(missing), 0.04)
    cross: dict[str, Any] = {
        "color": colour(index),
        "markersize": 3,
        "transform": axes.get_xaxis_transform(),
    }
    axes.plot(missing, heights, "x", **cross)
    return bars


def _set_bar_range(axes: Axes, table: pd.DataFrame) -> float:
    """Start the axis just below the lowest bar; otherwise good values look all the same."""
    least = (table["mean"] - table["std"].fillna(0)).min()
    step = next((s for s in (1, 2, 5, 10, 20, 50) if 100 * (1 - least) < 4 * s), 100)
    start = 0.0 if math.isnan(least) else max(0.0, step * (math.floor(100 * least / step - 0.25)))
    axes.set_ylim(start, 100 + 0.01 * (100 - start))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    return start


def draw_differences(compared: pd.DataFrame, title: str) -> Figure:
    """A forest plot: a row for each variant, a panel for each metric.

    Args:
        compared: rows of `compare_variants` on one data set, at least one.
        title: first line.
    """
    variants = list(dict.fromkeys(compared["variant"]))
    metrics = list(dict.fromkeys(compared["metric"]))
    labels = [wrap(variant, 34) for variant in variants]
    lines = sum(1 + label.count("\n") / 2 for label in labels)
    figure = Figure(figsize=(WIDTH, 0.75 + 0.2 * lines))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        rows = compared[compared["metric"] == metric].set_index("variant").reindex(variants)
        _draw_intervals(axes, rows)
        axes.set_title(metric_name(metric))
        axes.set_xlabel("difference, points")
    panels[0].set_yticks(range(len(variants)), labels)
    panels[0].set_ylim(len(variants) - 0.4, -0.6)
    set_title(figure, title)
    units = " or ".join(compared["resampled"].unique())
    notes = [
        "Variant minus baseline in percentage points: mean over the categories of the mean over "
        f"the seeds that both have. Lines: 95 % bootstrap interval (BCa) over {units}."
    ]
    if compared["low"].isna().any():
        notes.append("Hollow: fewer than 2 pairs, no interval. No point: undefined.")
    unpaired = compared["variant"][~compared["paired"].astype(bool)].unique()
    if len(unpaired):
        notes.append(f"No category and seed in common with the baseline: {', '.join(unpaired)}.")
    add_legend_and_notes(figure, notes)
    return figure


def _draw_intervals(axes: Axes, rows: pd.DataFrame) -> None:
    """Points with intervals; hollow points have none."""
    values = 100 * rows[["difference", "low", "high"]].to_numpy(float)
    axes.axvline(0, color="0.4", linewidth=0.7)
    for y, (middle, low, high) in enumerate(values):
        has_interval = not np.isnan(low)
        if has_interval:
            axes.plot([low, high], [y, y], color=COLOURS[0], linewidth=1.2)
        if not np.isnan(middle):
            fill = COLOURS[0] if has_interval else "white"
            axes.plot(middle, y, "o", ms=4, markeredgecolor=COLOURS[0], markerfacecolor=fill)
    # Zero is always visible, and a single difference does not fill the panel.
    most = np.nanmax(np.abs(values), initial=1.0)
    left, right = np.nanmin(values, initial=-0.1 * most), np.nanmax(values, initial=0.1 * most)
    axes.set_xlim(left - 0.12 * most, right + 0.12 * most)
    axes.grid(axis="x", color="0.9", linewidth=0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)


def draw_matrix(
    summary: pd.DataFrame,
    metrics: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
    title: str,
    notes: Sequence[str],
) -> Figure:
    """A heat table of a variant: a row for each category and mean, a column for each metric.

    Args:
        summary: the variant's rows of `category_table` on one data set.
        metrics: of the columns.
        ranges: metric -> values of the lightest and darkest colour.
        title: first line.
        notes: small print.
    """
    names, means = _matrix_rows(summary)
    rows = [*names, *means]
    labels = [shorten(row, 32) for row in rows]
    # Long names must not narrow the columns.
    width = min(WIDTH, 0.4 + 0.055 * max(map(len, labels)) + 0.62 * len(metrics))
    figure = Figure(figsize=(max(width, 2.5), 0.55 + 0.17 * len(rows)))
    axes: Axes = figure.add_subplot()
    cells = summary.set_index(["category", "metric"])
    mean, std = (
        cells[name].unstack("metric").reindex(index=rows, columns=list(metrics)).to_numpy(float)
        for name in ("mean", "std")
    )
    low, high = np.array([ranges[metric] for metric in metrics]).T
    span = np.where(high > low, high - low, np.inf)
    shade = np.ma.masked_invalid((mean - low) / span)
    axes.imshow(shade, LIGHT_BLUES, vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(~np.isnan(mean)):
        text = f"{100 * mean[row, column]:.1f}"
        text += "" if np.isnan(std[row, column]) else f" ±{100 * std[row, column]:.1f}"
        weight = "bold" if row >= len(names) else "normal"
        axes.text(column, row, text, ha="center", va="center", fontsize=6.3, weight=weight)
    # White lines between cells, a black one above the means.
    axes.set_xticks(np.arange(len(metrics) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    if means:
        axes.axhline(len(names) - 0.5, color="black", linewidth=0.8)
    headings = ["\n".join(metric_heading(metric).heading[:-1]) for metric in metrics]
    axes.set_xticks(range(len(metrics)), headings)
    axes.set_yticks(range(len(rows)), labels)
    for tick in axes.get_yticklabels()[len(names) :]:
        tick.set_fontweight("bold")
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_title(title, loc="left", x=0, pad=4)
    add_legend_and_notes(figure, notes)
    return figure


def color_ranges(summary: pd.DataFrame, metrics: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Metric -> the lowest and highest value of any category and variant."""
    singles = summary[summary["kind"] == "category"].groupby("metric")["mean"]
    low, high = singles.min(), singles.max()
    return {metric: (low[metric], high[metric]) for metric in metrics}


def _matrix_rows(summary: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Categories, textures first, and the means over more than one of them."""
    members = summary[["category", "group", "kind"]].drop_duplicates()
    singles = members[members["kind"] == "category"]
    sizes = singles["group"].value_counts()
    means = [
        label
        for label, group, kind in members.itertuples(index=False)
        if kind == "mean"
        and (1 < sizes[group] < len(singles) if group in GROUPS else len(singles) > 1)
    ]
    return singles["category"].tolist(), means
