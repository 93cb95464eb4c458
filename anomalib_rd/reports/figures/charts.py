"""Charts of metrics: bars, differences to a baseline, heat tables."""

import math
from collections.abc import Mapping, Sequence

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
    colour,
    foot,
    hatch,
    heading,
    short,
    wrapped,
)
from anomalib_rd.reports.tables import HEADINGS
from anomalib_rd.results.table import GROUPS, MEAN_ALL

BARS_IN_A_ROW = 100
PANEL, NAMES = 1.35, 0.75  # inches


def draw_bars(
    summary: pd.DataFrame, metrics: Sequence[str], title: str, notes: Sequence[str]
) -> Figure:
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
        handles = _bar_panel(axes, values, variants, chunk)
        start = _bar_axis(axes, values)
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


def _bar_panel(
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


def _bar_axis(axes: Axes, table: pd.DataFrame) -> float:
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


VARIANT, FRAME = 0.2, 0.75  # inches
LABEL = 34  # characters in a line


def draw_differences(compared: pd.DataFrame, metrics: Sequence[str], title: str) -> Figure:
    """A row for each variant, a panel for each metric.

    Args:
        compared: of `compare_variants`, one data, with at least one of the metrics.
        metrics: a panel each.
        title: a line at the top.
    """
    variants = list(dict.fromkeys(compared["variant"]))
    labels = [wrapped(variant, LABEL) for variant in variants]
    lines = sum(0.5 + label.count("\n") / 2 for label in labels) + 0.5 * len(labels)
    figure = Figure(figsize=(WIDTH, FRAME + VARIANT * lines))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _difference_panel(
            axes, compared[compared["metric"] == metric].set_index("variant").reindex(variants)
        )
        axes.set_title(heading(metric))
        axes.set_xlabel("difference, points")
    panels[0].set_yticks(range(len(variants)), labels)
    panels[0].set_ylim(len(variants) - 0.4, -0.6)
    figure.suptitle(title, fontsize=7, x=0.01, ha="left")
    foot(figure, _difference_notes(compared))
    return figure


def _difference_panel(axes: Axes, rows: pd.DataFrame) -> None:
    """Points with their intervals; hollow where there is none."""
    middle, low, high = (100 * rows[name].to_numpy(float) for name in ("difference", "low", "high"))
    axes.axvline(0, color="0.4", linewidth=0.7)
    for y, (at, least, most) in enumerate(zip(middle, low, high, strict=True)):
        known = not np.isnan(least)
        if known:
            axes.plot([least, most], [y, y], color=COLOURS[0], linewidth=1.2)
        if not np.isnan(at):
            face = COLOURS[0] if known else "white"
            axes.plot(at, y, "o", markersize=4, markeredgecolor=COLOURS[0], markerfacecolor=face)
    shown = np.concatenate([middle, low, high])
    # Zero is always in sight, and one difference alone does not fill the panel.
    most = np.nanmax(np.abs(shown), initial=1.0)
    left, right = np.nanmin(shown, initial=-0.1 * most), np.nanmax(shown, initial=0.1 * most)
    axes.set_xlim(left - 0.12 * most, right + 0.12 * most)
    axes.grid(axis="x", color="0.9", linewidth=0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)


def _difference_notes(compared: pd.DataFrame) -> list[str]:
    units = " or ".join(compared["resampled"].unique())
    lines = [
        "Each variant less the baseline, in percentage points: the mean over the categories of the "
        f"mean over the seeds that both have. Lines: 95 % bootstrap interval (BCa) over {units}."
    ]
    if compared["low"].isna().any():
        lines.append("Hollow: fewer than 2 pairs, no interval. No point: undefined.")
    apart = compared["variant"][~compared["paired"].astype(bool)].unique()
    if len(apart):
        lines.append(f"No category and seed in common with the baseline: {', '.join(apart)}.")
    return lines


ROW, CELL, HEAD = 0.17, 0.62, 0.55  # inches
# The light part of the colours: dark text can be read on all of them.
LIGHT_BLUES = LinearSegmentedColormap.from_list("light", colormaps["Blues"](np.linspace(0.03, 0.6)))


def draw_matrix(
    summary: pd.DataFrame,
    metrics: Sequence[str],
    scales: Mapping[str, tuple[float, float]],
    title: str,
    notes: Sequence[str],
) -> Figure:
    """The heat table of one variant on one data.

    Args:
        summary: the variant's rows of `category_table`.
        metrics: the columns.
        scales: metric -> lowest and highest value of the colours, shared by all variants.
        title: a line at the top.
        notes: small print, such as why cells are blank.
    """
    labels, means = _matrix_rows(summary)
    by_label = summary.set_index(["category", "metric"])
    # A long name takes its room from no column.
    width = min(
        WIDTH, 0.4 + 0.055 * max(map(len, map(_matrix_label, labels))) + CELL * len(metrics)
    )
    height = HEAD + ROW * len(labels)
    figure = Figure(figsize=(max(width, 2.5), height))
    axes: Axes = figure.add_subplot()
    mean = _grid(by_label["mean"], labels, metrics)
    std = _grid(by_label["std"], labels, metrics)
    low, high = (np.array([scales[m][end] for m in metrics]) for end in (0, 1))
    span = np.where(high > low, high - low, np.inf)
    axes.imshow(
        np.ma.masked_invalid((mean - low) / span), LIGHT_BLUES, vmin=0, vmax=1, aspect="auto"
    )
    for row, column in np.argwhere(~np.isnan(mean)):
        spread = std[row, column]
        text = f"{100 * mean[row, column]:.1f}"
        text += "" if np.isnan(spread) else f" ±{100 * spread:.1f}"
        weight = "bold" if labels[row] in means else "normal"
        axes.text(column, row, text, ha="center", va="center", fontsize=6.3, weight=weight)
    _matrix_lines(axes, labels, means)
    axes.set_xticks(range(len(metrics)), [_matrix_heading(metric) for metric in metrics])
    axes.set_yticks(range(len(labels)), [_matrix_label(label) for label in labels])
    for tick, label in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if label in means else "normal")
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_title(title, loc="left", x=0, pad=4)
    foot(figure, notes)
    return figure


def colour_scales(summary: pd.DataFrame, metrics: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Metric -> the lowest and highest value that any category of any variant has."""
    single = summary[summary["kind"] == "category"]
    values = {metric: single["mean"][single["metric"] == metric] for metric in metrics}
    return {metric: (column.min(), column.max()) for metric, column in values.items()}


def _matrix_rows(summary: pd.DataFrame) -> tuple[list[str], set[str]]:
    """Categories, textures first, then means that are over more than one of them."""
    members = summary[["category", "group", "kind"]].drop_duplicates()
    single = members[members["kind"] == "category"]
    of_group = single["group"].value_counts()
    means = members[members["kind"] == "mean"]
    shown = [
        label
        for label, group in zip(means["category"], means["group"], strict=True)
        if (1 < of_group[group] < len(single) if group in GROUPS else len(single) > 1)
    ]
    return [*single["category"], *shown], set(shown)


def _grid(values: "pd.Series[float]", labels: list[str], metrics: Sequence[str]) -> np.ndarray:
    return values.unstack("metric").reindex(index=labels, columns=list(metrics)).to_numpy(float)


def _matrix_lines(axes: Axes, labels: list[str], means: set[str]) -> None:
    """White between the cells; a line above the means."""
    columns = len(axes.images[0].get_array()[0])  # type: ignore[index]
    axes.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    if means:
        axes.axhline(len(labels) - len(means) - 0.5, color="black", linewidth=0.8)


def _matrix_heading(metric: str) -> str:
    lines = HEADINGS[metric].heading[:-1] if metric in HEADINGS else (metric,)
    return "\n".join(lines).replace("<=", "≤")


def _matrix_label(label: str) -> str:
    return short(label, 32)
