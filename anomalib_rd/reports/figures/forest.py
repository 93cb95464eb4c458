"""A forest plot of the differences to the baseline, with their confidence intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anomalib_rd.reports.figures.style import COLOURS, WIDTH, foot, heading, wrapped

ROW, FRAME = 0.2, 0.75  # inches
LABEL = 34  # characters in a line


def forest(compared: pd.DataFrame, metrics: Sequence[str], title: str) -> Figure:
    """A row for each variant, a panel for each metric.

    Args:
        compared: of `compare_variants`, one data, with at least one of the metrics.
        metrics: a panel each.
        title: a line at the top.
    """
    variants = list(dict.fromkeys(compared["variant"]))
    labels = [wrapped(variant, LABEL) for variant in variants]
    lines = sum(0.5 + label.count("\n") / 2 for label in labels) + 0.5 * len(labels)
    figure = Figure(figsize=(WIDTH, FRAME + ROW * lines))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _panel(axes, compared[compared["metric"] == metric].set_index("variant").reindex(variants))
        axes.set_title(heading(metric))
        axes.set_xlabel("difference, points")
    panels[0].set_yticks(range(len(variants)), labels)
    panels[0].set_ylim(len(variants) - 0.4, -0.6)
    figure.suptitle(title, fontsize=7, x=0.01, ha="left")
    foot(figure, _notes(compared))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
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


def _notes(compared: pd.DataFrame) -> list[str]:
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
