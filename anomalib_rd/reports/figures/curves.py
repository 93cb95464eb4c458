"""Curves: a figure for each kind, a panel for each category, a line for each run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anomalib_rd.reports.figures.style import (
    WIDTH,
    add_legend_and_notes,
    colour,
    dashes,
    set_title,
    shorten,
)
from anomalib_rd.results.record import read_curves

PRO_LIMIT = 0.3
COLUMNS, PANEL = 5, 1.45  # inches


@dataclass(frozen=True)
class Kind:
    """A kind of curve: its arrays in ``curves.npz``, axis labels, and metric."""

    name: str
    title: str
    x: str
    y: str
    labels: tuple[str, str]
    metric: str


_ROC, _PR = ("false positive rate", "true positive rate"), ("recall", "precision")
KINDS = (
    Kind("roc-image", "Image ROC", "image_roc_fpr", "image_roc_tpr", _ROC, "image_auroc"),
    Kind("pr-image", "Image PR", "image_pr_recall", "image_pr_precision", _PR, "image_ap"),
    Kind("roc-pixel", "Pixel ROC", "pixel_roc_fpr", "pixel_roc_tpr", _ROC, "pixel_auroc"),
    Kind("pr-pixel", "Pixel PR", "pixel_pr_recall", "pixel_pr_precision", _PR, "pixel_ap"),
    Kind("pro", "PRO", "pro_fpr", "pro", ("false positive rate", "region overlap"), "aupro"),
)
Curves = Callable[[str], dict[str, np.ndarray]]


def cache_curves() -> Curves:
    """`read_curves`, which reads each run once for all kinds."""
    return cache(read_curves)


def draw_curves(runs: pd.DataFrame, kind: Kind, curves: Curves, title: str) -> Figure | None:
    """All runs' curves of a kind; None if no run has it.

    Args:
        runs: rows of `load_runs` on one data set, without repeats.
        kind: of the curve.
        curves: run's folder -> its curves.
        title: first line, after the kind's name.

    Raises:
        UserError: a run's curves cannot be read.
    """
    is_object = runs["group"].ne("texture")
    ordered = runs.assign(is_object=is_object).sort_values(["is_object", "category"])
    categories = list(ordered["category"].unique())
    variants = list(dict.fromkeys(runs["variant"]))
    columns = min(COLUMNS, len(categories))
    rows = -(-len(categories) // columns)
    width = WIDTH * columns / COLUMNS if columns > 2 else 3.5
    figure = Figure(figsize=(width, rows * PANEL * (1.5 if columns < 3 else 1) + 0.6))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels: list[Axes] = grid.ravel().tolist()
    undefined: dict[str, list[str]] = {}
    for axes, category in zip(panels, categories, strict=False):
        own = runs[runs["category"] == category]
        drawn = [_draw_line(axes, run, kind, curves, variants) for run in own.to_dict("records")]
        if not any(drawn):
            undefined.setdefault(_undefined_reason(own, kind.metric), []).append(category)
            text = axes.text(0.5, 0.5, "undefined", ha="center", va="center", color="0.4")
            text.set_backgroundcolor("white")
        axes.set_title(shorten(category, 22))
        _set_axes(axes, kind)
    if sum(map(len, undefined.values())) == len(categories):
        return None
    for axes in panels[len(categories) :]:
        axes.set_visible(False)
    figure.supylabel(kind.labels[1], fontsize=7)
    # The notes are where a shared label would be: the last row has the labels of x.
    for axes in panels[max(0, len(categories) - columns) : len(categories)]:
        axes.set_xlabel(kind.labels[0])
        axes.tick_params(labelbottom=True)
    set_title(figure, f"{kind.title} curves, {title}")
    seeds = sorted(runs["seed"].unique())
    notes = [f"{', '.join(names)}: {reason}." for reason, names in undefined.items()]
    if kind.metric == "aupro":
        notes.insert(0, f"Dashed: AUPRO is the area up to a false positive rate of {PRO_LIMIT}.")
    if len(seeds) > 1:
        notes.insert(0, f"A line for each seed: {', '.join(map(str, seeds))}.")
    lines = [Line2D([], [], color=colour(i), ls=dashes(i)) for i in range(len(variants))]
    add_legend_and_notes(figure, notes, lines, variants)
    return figure


def _draw_line(
    axes: Axes, run: dict[Any, Any], kind: Kind, curves: Curves, variants: Sequence[str]
) -> bool:
    """Draw a run's curve; False if it has none."""
    arrays, index = curves(run["run"]), variants.index(run["variant"])
    x, y = arrays.get(kind.x, np.zeros(0)), arrays.get(kind.y, np.zeros(0))
    if not len(x):
        return False
    # Precision is known at each threshold, but not between two of them.
    steps = "steps-pre" if kind.y.endswith("precision") else "default"
    axes.plot(x, y, color=colour(index), ls=dashes(index), lw=0.7, alpha=0.8, drawstyle=steps)
    return True


def _set_axes(axes: Axes, kind: Kind) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    if kind.metric == "aupro":
        axes.axvline(PRO_LIMIT, color="black", linewidth=0.7, linestyle=(0, (2, 2)))


def _undefined_reason(runs: pd.DataFrame, metric: str) -> str:
    reasons = [undefined[metric] for undefined in runs["undefined"] if metric in undefined]
    return f"undefined: {reasons[0]}" if reasons else "no curve saved"
