"""One run, many budgets: the points of the test curve as if each were a run of so many epochs.

Under a constant learning rate they are: the last epoch of a shorter run is the same epoch of a
longer one. Runs with a schedule are left out.
"""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from anomalib_rd.reports.figures.style import WIDTH, colour, dashes, foot, heading
from anomalib_rd.results.record import read_record
from anomalib_rd.results.table import ORACLE, drop_repeats, metric_columns

BUDGETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_EPOCHS = re.compile(r" (?:trainer\.)?max_epochs=\S+")


def budgets(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs' points of the test curve, and of all runs the last epoch.

    Args:
        runs: of `load_runs`; their records are read again.

    Returns:
        Rows as of `load_runs`, one for each variant, category, seed and epoch: ``of`` is the
        variant without its number of epochs, ``variant`` the same with the point's. No row where
        no run has a test curve. ``oracle_`` columns and durations are of whole runs: left out.

    Raises:
        UserError: a record that cannot be read.
    """
    metrics = metric_columns(runs)
    rows: list[dict[str, Any]] = []
    curves = 0
    whole = drop_repeats(runs).drop(columns=[c for c in runs if str(c).startswith(ORACLE)])
    for run in whole.to_dict("records"):
        record = read_record(run["run"])
        if record["config"].get("scheduler"):
            continue
        points = {int(point["epoch"]): point for point in record["test_curve"]}
        curves += bool(points)
        points[run["epochs"]] = {m: run[m] for m in metrics}
        of = _EPOCHS.sub("", run["variant"])
        for epoch, point in points.items():
            row = {str(name): value for name, value in run.items() if name not in metrics}
            row |= {"of": of, "variant": with_budget(of, epoch), "epochs": epoch}
            row |= {"total_s": float("nan"), "train_s": float("nan")}
            rows.append(row | {m: point.get(m, float("nan")) for m in metrics})
    table = pd.DataFrame(rows if curves else [], columns=[*whole.columns, "of"])
    return table.sort_values(["of", "epochs"], kind="stable", ignore_index=True)


def with_budget(variant: str, epochs: int) -> str:
    """The label of a variant after so many epochs."""
    return f"{variant} epochs={epochs}"


def tabled(budgeted: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of `budgets` those of round numbers of epochs, and each variant's last."""
    last = budgeted.groupby("of")["epochs"].transform("max")
    return budgeted[budgeted["epochs"].isin(BUDGETS) | (budgeted["epochs"] == last)]


def learning_curves(budgeted: pd.DataFrame, metrics: Sequence[str], title: str) -> Figure:
    """A row for each category, a panel for each metric; a line for each seed and variant.

    Args:
        budgeted: of `budgets`, at least one row.
        metrics: a panel each.
        title: a line at the top.
    """
    categories = sorted(budgeted["category"].unique())
    variants = list(dict.fromkeys(budgeted["of"]))
    figure = Figure(figsize=(WIDTH, 0.5 + 1.5 * len(categories)))
    panels = figure.subplots(len(categories), len(metrics), sharex=True, squeeze=False)
    handles: dict[str, Any] = {}
    for (variant, category, _), part in budgeted.groupby(["of", "category", "seed"], sort=False):
        position = variants.index(str(variant))
        for axes, metric in zip(panels[categories.index(category)], metrics, strict=True):
            (handles[str(variant)],) = axes.plot(
                part["epochs"],
                100 * part[metric],
                color=colour(position),
                linestyle=dashes(position),
                marker=".",
                markersize=2,
                linewidth=0.8,
            )
    for row, category in zip(panels, categories, strict=True):
        row[0].set_ylabel(f"{category}, %")
    for column, metric in enumerate(metrics):
        panels[0][column].set_title(heading(metric))
        panels[-1][column].set_xlabel("epochs")
        panels[-1][column].set_xscale("log")
        last = int(budgeted["epochs"].max())
        marks = [*(epochs for epochs in BUDGETS if 1.2 * epochs < last), last]
        panels[-1][column].set_xticks(marks, [str(epochs) for epochs in marks])
        panels[-1][column].minorticks_off()
    figure.suptitle(title, fontsize=7, x=0.01, ha="left")
    notes = ["A line for each seed. A look at the test set, by which nothing was chosen."]
    foot(figure, notes, [handles[variant] for variant in variants], variants)
    return figure
