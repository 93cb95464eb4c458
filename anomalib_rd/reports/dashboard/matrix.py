"""The matrix of categories: a cell for each metric and variant."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from anomalib_rd.reports.cells import records
from anomalib_rd.reports.formatting import format_percent, format_std
from anomalib_rd.results.table import GROUPS, drop_repeats

NARROWEST = 0.02
"""A metric whose values differ by less is not stretched over all colours."""


@dataclass(frozen=True)
class Cell:
    """A mean over seeds.

    Attributes:
        metric: its column belongs to.
        value: in percent, to sort by; None where undefined.
        depth: 0 for the metric's best value in the matrix to 1 for its worst.
        note: what is to be known of it.
        run: key of one of its runs, None for means over categories.
    """

    metric: str
    text: str
    spread: str
    value: float | None
    depth: float
    note: str
    run: str | None


@dataclass(frozen=True)
class Row:
    """A category, or a mean over several."""

    label: str
    group: str
    cells: list[Cell]


@dataclass(frozen=True)
class Matrix:
    """Columns are metrics, and for each of them all variants."""

    metrics: Sequence[str]
    variants: Sequence[str]
    rows: list[Row]
    means: list[Row]


def category_matrix(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    metrics: Sequence[str],
    keys: Mapping[str, str],
) -> Matrix:
    """The matrix of one data.

    Args:
        runs: the data's, of `load_runs`.
        summary: the data's rows of `category_table`.
        metrics: those with a column.
        keys: run's folder -> its key in links.
    """
    variants = list(dict.fromkeys(runs["variant"]))
    found = {(r["category"], r["metric"], r["variant"]): r for r in records(summary)}
    scales = {name: _scale(summary[summary["metric"] == name]) for name in metrics}
    first = drop_repeats(runs).drop_duplicates(["variant", "category"])
    links = {(r["variant"], r["category"]): keys[r["run"]] for r in records(first)}
    why = {
        (r["variant"], r["category"], metric): reason
        for r in records(runs)
        for metric, reason in r["undefined"].items()
    }

    def cell(label: str, metric: str, variant: str) -> Cell:
        row = found.get((label, metric, variant))
        if row is None:
            return Cell(metric, "", "", None, 0.0, "not run", None)
        mean = row["mean"]
        missing = why.get((variant, label, metric), "undefined")
        return Cell(
            metric=metric,
            text=format_percent(mean),
            spread=format_std(row["std"]),
            value=None if math.isnan(mean) else round(100 * mean, 6),
            depth=0.0 if math.isnan(mean) else _depth(mean, *scales[metric]),
            note=missing if math.isnan(mean) else _note(row),
            run=links.get((variant, label)),
        )

    def rows(kind: str) -> list[Row]:
        members = summary[summary["kind"] == kind][["category", "group"]].drop_duplicates()
        order = [*GROUPS, "all"]
        return [
            Row(
                r["category"],
                r["group"],
                [cell(r["category"], m, v) for m in metrics for v in variants],
            )
            for r in sorted(records(members), key=lambda r: order.index(r["group"]))
        ]

    singles, means = rows("category"), rows("mean")
    # The mean of a group that holds everything says nothing new.
    kept = means if len({row.group for row in singles}) > 1 else means[-1:]
    return Matrix(metrics, variants, singles, kept if len(singles) > 1 else [])


def _scale(summary: pd.DataFrame) -> tuple[float, float]:
    values = summary["mean"].to_numpy(dtype=float)
    if np.isnan(values).all():
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return min(low, high - NARROWEST), high


def _depth(value: float, low: float, high: float) -> float:
    return round((high - value) / (high - low), 3)


def _note(row: Mapping[str, float]) -> str:
    parts = []
    if row["n_categories"] < row["of_categories"]:
        parts.append(f"{row['n_categories']} of {row['of_categories']} categories")
    if row["n_seeds"] == 0:
        parts.append("no seed has every category: mean of the categories' means")
    else:
        parts.append("1 seed" if row["n_seeds"] == 1 else f"{row['n_seeds']} seeds")
    return "; ".join(parts)
