"""Bars: a panel for each metric, a group for each category, a bar for each variant."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from anomalib_rd.reports.figures.style import (
    COLOURS,
    WIDTH,
    colour,
    foot,
    hatch,
    heading,
    short,
)
from anomalib_rd.results.table import MEAN_ALL

BARS_IN_A_ROW = 100
PANEL, NAMES = 1.35, 0.75  # inches


def bars(summary: pd.DataFrame, metrics: Sequence[str], title: str, notes: Sequence[str]) -> Figure:
    """Means over seeds, with the standard deviation over seeds as error bars.

    Args:
        summary: rows of `category_table` of one data.
        metrics: a panel each.
        title: a line at the top.
        notes: small print.
    """
    variants = list(dict.fromkeys(summary["variant"]))
    names = list(dict.fromkeys(summary["category"][summary["kind"] == "category"]))
    labels = [*names, MEAN_ALL] if len(names) > 1 else names
    per_row = max(1, BARS_IN_A_ROW // len(variants))
    chunks = [labels[i : i + per_row] for i in range(0, len(labels), per_row)]
    width = min(WIDTH, max(3.5, 0.6 + len(chunks[0]) * max(0.25, 0.1 * len(variants))))
    height = len(chunks) * (PANEL * len(metrics) + NAMES) + 0.5
    figure = Figure(figsize=(width, height))
    # Names below the last metric of each chunk alone.
    panels = figure.subplots(len(chunks) * len(metrics), 1, squeeze=False)[:, 0]
    table = summary.set_index(["metric", "variant", "category"])
    handles: list[object] = []
    for index, axes in enumerate(panels):
        chunk, metric = chunks[index // len(metrics)], metrics[index % len(metrics)]
        values = pd.DataFrame(table.loc[metric])
        handles = _panel(axes, values, variants, chunk)
        start = _axis(axes, values)
        axes.set_ylabel(f"{heading(metric)}, %" + (f"\n(from {start:g} on)" if start else ""))
        last = index % len(metrics) == len(metrics) - 1
        shown = [short(name, 20) for name in chunk] if last else []
        axes.set_xticks(range(len(chunk)) if last else [], shown, rotation=40, ha="right")
        for tick in axes.get_xticklabels():
            tick.set_rotation_mode("anchor")
        axes.set_xlim(-0.6, len(chunk) - 0.4)
    figure.suptitle(title, fontsize=7, x=0.01, ha="left")
    foot(figure, notes, handles, variants)
    return figure


def _panel(
    axes: Axes, table: pd.DataFrame, variants: Sequence[str], names: Sequence[str]
) -> list[object]:
    """One metric's bars; undefined ones are marked by a cross on the axis, not by 0."""
    wide = 0.84 / len(variants)
    handles: list[object] = []
    for position, variant in enumerate(variants):
        own = pd.DataFrame(table.loc[variant]).reindex(list(names))
        mean, std = 100 * own["mean"].to_numpy(), 100 * own["std"].to_numpy()
        at = np.arange(len(names)) + (position - (len(variants) - 1) / 2) * wide
        drawn = axes.bar(
            at,
            mean,
            0.92 * wide,
            color=colour(position),
            hatch=hatch(position // len(COLOURS) + position % 2),
            edgecolor="white",
            linewidth=0.3,
        )
        spread = ~np.isnan(std)
        axes.errorbar(
            at[spread], mean[spread], std[spread], fmt="none", ecolor="black", elinewidth=0.6
        )
        missing = at[np.isnan(mean)]
        axes.plot(
            missing,
            np.full(len(missing), 0.04),
            "x",
            color=colour(position),
            markersize=3,
            transform=axes.get_xaxis_transform(),
        )
        handles.append(drawn)
    if MEAN_ALL in names:
        axes.axvline(len(names) - 1.5, color="grey", linewidth=0.5)
    return handles


def _axis(axes: Axes, table: pd.DataFrame) -> float:
    """Starts the axis just below the lowest bar: near the top nothing could be told apart."""
    least = (table["mean"] - table["std"].fillna(0)).min()
    span = 100 * (1 - least)
    step = next((s for s in (1, 2, 5, 10, 20, 50) if span < 4 * s), 100)
    start = 0.0 if math.isnan(least) else max(0.0, step * (math.floor(100 * least / step - 0.25)))
    axes.set_ylim(start, 100 + 0.01 * (100 - start))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    return start
