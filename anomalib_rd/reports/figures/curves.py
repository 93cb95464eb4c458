"""Curves: one figure for each kind, a panel for each category, a line for each run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anomalib_rd.reports.figures.style import WIDTH, colour, dashes, foot, short
from anomalib_rd.results.record import read_curves

PRO_LIMIT = 0.3
COLUMNS, PANEL = 5, 1.45  # inches


@dataclass(frozen=True)
class Kind:
    """A kind of curve: what ``curves.npz`` calls its axes, and what a reader does."""

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


def cached_curves() -> Curves:
    """Reads a run's curves once, for all kinds."""
    return cache(read_curves)


def curve_figure(runs: pd.DataFrame, kind: Kind, curves: Curves, title: str) -> Figure | None:
    """All runs' curves of one kind; None if no run has it.

    Args:
        runs: rows of `load_runs` of one data, without repeats.
        kind: which curve.
        curves: run's folder -> its curves.
        title: a line at the top, before the kind's name.

    Raises:
        UserError: a run's curves cannot be read.
    """
    groups = runs["group"].ne("texture")
    categories = list(runs.assign(o=groups).sort_values(["o", "category"])["category"].unique())
    variants = list(dict.fromkeys(runs["variant"]))
    columns = min(COLUMNS, len(categories))
    rows = -(-len(categories) // columns)
    width = WIDTH * columns / COLUMNS if columns > 2 else 3.5
    figure = Figure(figsize=(width, rows * PANEL * (1.5 if columns < 3 else 1) + 0.6))
    panels = (
        figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    )
    blank: dict[str, list[str]] = {}
    for axes, category in zip(panels, categories, strict=False):
        own = runs[runs["category"] == category]
        drawn = [_line(axes, run, kind, curves, variants) for run in own.to_dict("records")]
        if not any(drawn):
            blank.setdefault(_why(own, kind.metric), []).append(category)
            axes.text(
                0.5,
                0.5,
                "undefined",
                ha="center",
                va="center",
                color="0.4",
                backgroundcolor="white",
            )
        axes.set_title(short(category, 22))
    if len(blank) and sum(map(len, blank.values())) == len(categories):
        return None
    for axes in panels[len(categories) :]:
        axes.set_visible(False)
    _frame(panels[: len(categories)], kind)
    figure.supylabel(kind.labels[1], fontsize=7)
    # The small print takes the place of a shared label; so the last row says what x is.
    for axes in panels[max(0, len(categories) - columns) : len(categories)]:
        axes.set_xlabel(kind.labels[0])
        axes.tick_params(labelbottom=True)
    figure.suptitle(f"{kind.title} curves, {title}", fontsize=7, x=0.01, ha="left")
    notes = [*_notes(runs, kind), *(f"{', '.join(n)}: {why}." for why, n in blank.items())]
    lines = [Line2D([], [], color=colour(i), ls=dashes(i)) for i in range(len(variants))]
    foot(figure, notes, lines, variants)
    return figure


def _line(axes: Axes, run: dict, kind: Kind, curves: Curves, variants: Sequence[str]) -> bool:
    """Draws a run's curve; False if it has none."""
    found, position = curves(run["run"]), variants.index(run["variant"])
    x, y = found.get(kind.x, np.zeros(0)), found.get(kind.y, np.zeros(0))
    if not len(x):
        return False
    # Precision is known at each threshold, and not between.
    steps = "steps-pre" if kind.y.endswith("precision") else "default"
    axes.plot(x, y, color=colour(position), ls=dashes(position), lw=0.7, alpha=0.8, drawstyle=steps)
    return True


def _frame(panels: Sequence[Axes], kind: Kind) -> None:
    for axes in panels:
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_aspect("equal")
        if kind.metric == "aupro":
            axes.axvline(PRO_LIMIT, color="black", linewidth=0.7, linestyle=(0, (2, 2)))


def _notes(runs: pd.DataFrame, kind: Kind) -> list[str]:
    seeds = sorted(runs["seed"].unique())
    lines = [f"A line for each seed: {', '.join(map(str, seeds))}."] if len(seeds) > 1 else []
    if kind.metric == "aupro":
        lines.append(f"Dashed: the false positive rate of {PRO_LIMIT} up to which AUPRO counts.")
    return [" ".join(lines)] if lines else []


def _why(runs: pd.DataFrame, metric: str) -> str:
    reasons = [found[metric] for found in runs["undefined"] if metric in found]
    return f"undefined: {reasons[0]}" if reasons else "no curve on record"
