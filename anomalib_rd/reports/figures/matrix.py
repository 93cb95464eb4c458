"""A heat table of one variant: a row for each category and mean, a column for each metric."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from anomalib_rd.reports.cells import HEADINGS
from anomalib_rd.reports.figures.style import WIDTH, foot, short
from anomalib_rd.results.table import GROUPS

ROW, CELL, HEAD = 0.17, 0.62, 0.55  # inches
# The light part of the colours: dark text can be read on all of them.
_COLOURS = LinearSegmentedColormap.from_list("light", colormaps["Blues"](np.linspace(0.03, 0.6)))


def matrix(
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
    labels, means = _rows(summary)
    by_label = summary.set_index(["category", "metric"])
    # A long name takes its room from no column.
    width = min(WIDTH, 0.4 + 0.055 * max(map(len, map(_label, labels))) + CELL * len(metrics))
    height = HEAD + ROW * len(labels)
    figure = Figure(figsize=(max(width, 2.5), height))
    axes: Axes = figure.add_subplot()
    mean = _grid(by_label["mean"], labels, metrics)
    std = _grid(by_label["std"], labels, metrics)
    low, high = (np.array([scales[m][end] for m in metrics]) for end in (0, 1))
    span = np.where(high > low, high - low, np.inf)
    axes.imshow(np.ma.masked_invalid((mean - low) / span), _COLOURS, vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(~np.isnan(mean)):
        spread = std[row, column]
        text = f"{100 * mean[row, column]:.1f}"
        text += "" if np.isnan(spread) else f" ±{100 * spread:.1f}"
        weight = "bold" if labels[row] in means else "normal"
        axes.text(column, row, text, ha="center", va="center", fontsize=6.3, weight=weight)
    _lines(axes, labels, means)
    axes.set_xticks(range(len(metrics)), [_heading(metric) for metric in metrics])
    axes.set_yticks(range(len(labels)), [_label(label) for label in labels])
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


def _rows(summary: pd.DataFrame) -> tuple[list[str], set[str]]:
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


def _lines(axes: Axes, labels: list[str], means: set[str]) -> None:
    """White between the cells; a line above the means."""
    columns = len(axes.images[0].get_array()[0])  # type: ignore[index]
    axes.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    if means:
        axes.axhline(len(labels) - len(means) - 0.5, color="black", linewidth=0.8)


def _heading(metric: str) -> str:
    lines = HEADINGS[metric].heading[:-1] if metric in HEADINGS else (metric,)
    return "\n".join(lines).replace("<=", "≤")


def _label(label: str) -> str:
    return short(label, 32)
