"""What makes each variant: the config keys in which they differ."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.reports.comparison_table import comparison_table
from anomalib_rd.reports.formatting import (
    format_duration,
    format_percent,
    format_points,
    format_published,
    format_rate,
    format_std,
)
from anomalib_rd.reports.layout import Table
from anomalib_rd.reports.page.runs import Collected, Run
from anomalib_rd.reports.published_columns import source
from anomalib_rd.reports.tables import HEADINGS, HEADLINE, overview_table, records, shown_metrics
from anomalib_rd.results.published import DATA, Published, compare
from anomalib_rd.results.record import parent_run
from anomalib_rd.results.table import GROUPS, MEAN_ALL, drop_repeats
from anomalib_rd.results.variants import short_labels, variant_settings

_ABSENT = "–"


def config_differences(runs: Sequence[Run], variants: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Config key -> its value in each variant, for the keys that tell variants apart.

    Keys that differ within a variant (they do not make it) are left out.
    """
    values: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        for key, value in variant_settings(run.record["config"]):
            by_variant = values.setdefault(key, {})
            by_variant.setdefault(run.row["variant"], set()).add(_text(value))
    found = []
    for key, by_variant in values.items():
        if all(len(texts) == 1 for texts in by_variant.values()):
            line = [next(iter(by_variant[v])) if v in by_variant else _ABSENT for v in variants]
            if len(set(line)) > 1:
                found.append((key, line))
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


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


@dataclass(frozen=True)
class Mean:
    """A mean over categories; ``difference`` and ``interval`` to the baseline, or empty."""

    metric: str
    text: str
    spread: str
    value: float
    difference: str
    interval: str


@dataclass(frozen=True)
class Variant:
    """A variant's line; durations and speeds are medians over its runs.

    ``short`` is the label without what all variants have in common.
    """

    label: str
    short: str
    is_baseline: bool
    runs: int
    seeds: str
    categories: int
    means: list[Mean]
    train: str
    total: str
    train_speed: str
    test_speed: str


@dataclass(frozen=True)
class Beside:
    """A published mean of one metric, and each variant's difference to it, in points."""

    metric: str
    method: str
    reported: str
    differences: list[str]
    source: str


def variant_lines(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    compared: pd.DataFrame,
    baseline: str,
    metrics: Sequence[str],
) -> list[Variant]:
    """A line for each variant of one data, in the order of its runs.

    Args:
        runs: the data's, of `load_runs`.
        summary: the data's rows of `category_table`.
        compared: the data's rows of `compare_variants`.
        baseline: the label of the variant that the others are compared with.
        metrics: those with a column; each line has one mean for each of them.
    """
    means = {
        (r["variant"], r["metric"]): r for r in records(summary[summary["category"] == MEAN_ALL])
    }
    differences = {(r["variant"], r["metric"]): r for r in records(compared)}

    def mean(variant: str, metric: str) -> Mean:
        row, against = means[variant, metric], differences.get((variant, metric))
        interval = ""
        if against is not None and against["low"] == against["low"]:
            interval = f"{format_points(against['low'])} to {format_points(against['high'])}"
        return Mean(
            metric=metric,
            text=format_percent(row["mean"]),
            spread=format_std(row["std"]),
            value=100 * row["mean"],
            difference="" if against is None else format_points(against["difference"]),
            interval=interval,
        )

    lines = []
    short = short_labels(list(dict.fromkeys(runs["variant"])))
    for variant, own in runs.groupby("variant", sort=False):
        label = str(variant)
        lines.append(
            Variant(
                label=label,
                short=short[label],
                is_baseline=label == baseline,
                runs=own["run"].map(parent_run).nunique(),
                seeds=", ".join(map(str, sorted(own["seed"].unique()))),
                categories=own["category"].nunique(),
                means=[mean(label, metric) for metric in metrics],
                train=format_duration(own["train_s"].median()),
                total=format_duration(own["total_s"].median()),
                train_speed=format_rate(own["train_images_per_s"].median()),
                test_speed=format_rate(own["test_images_per_s"].median()),
            )
        )
    return lines


def beside_published(
    summary: pd.DataFrame, published: Mapping[str, Published], variants: Sequence[str]
) -> list[Beside]:
    """The reported means over the same categories, where protocol and metric are the same.

    Where variants cover different categories there is a line for each reported mean.
    """
    found = compare(summary, published)
    found = found[found["category"] == MEAN_ALL]
    lines = []
    for key, part in found.groupby(["metric", "method", "reported"], sort=False):
        metric, method, reported = (str(value) for value in key)
        theirs = published[method]
        by_variant = {r["variant"]: r for r in records(part)}
        differences = [
            format_points(by_variant[v]["difference"] / 100) if v in by_variant else ""
            for v in variants
        ]
        lines.append(
            Beside(
                metric=metric,
                method=theirs.name + ("" if theirs.verified else "*"),
                reported=format_published(float(reported)),
                differences=differences,
                source=source(theirs),
            )
        )
    return lines


@dataclass(frozen=True)
class Section:
    """What the overview says of one data.

    ``headline`` are the metrics of the table of means: its headings, and each variant's ``means``.
    """

    data: str
    statement: str
    notes: list[str]
    baseline: str
    seeds: int
    headline: list[str]
    variants: list[Variant]
    matrix: Matrix
    differences: Table | None
    beside: list[Beside]
    configs: list[tuple[str, list[str]]]
    drawn: dict[str, Any]

    @property
    def labels(self) -> list[str]:
        """The variants' names, in their order."""
        return [variant.label for variant in self.variants]

    @property
    def short(self) -> list[str]:
        """The same without what all have in common."""
        return [variant.short for variant in self.variants]


def metric_name(metric: str) -> str:
    """The metric's name in headings, such as "image AUROC"."""
    known = HEADINGS.get(metric)
    return known.name.replace("<=", "≤") if known else metric.replace("_", " ")


def headline_metrics(shown: Sequence[str]) -> list[str]:
    """Those of the shown metrics that stand in the table of means."""
    return [metric for metric in HEADLINE if metric in shown]


def data_sections(collected: Collected, published: Mapping[str, Published]) -> list[Section]:
    """A section for each data, in the order of the runs."""
    return [
        _section(str(data), collected, published) for data in dict.fromkeys(collected.runs["data"])
    ]


def _section(data: str, collected: Collected, published: Mapping[str, Published]) -> Section:
    runs, summary, compared = (
        table[table["data"] == data]
        for table in (collected.runs, collected.summary, collected.compared)
    )
    baseline = collected.baselines[data]
    read = [run for run in collected.read if run.group.data == data]
    means = headline_metrics(shown_metrics(runs))
    variants = variant_lines(runs, summary, compared, baseline, means)
    labels = [variant.label for variant in variants]
    overview = overview_table(runs, summary, {})
    # The page has one choice of metric for all its matrices: each has a column for each of them.
    metrics = shown_metrics(collected.runs)
    matrix = category_matrix(runs, summary, metrics, {run.row["run"]: run.key for run in read})
    headline = compared[compared["metric"].isin(HEADLINE)]
    return Section(
        data=data,
        statement=overview.statement,
        notes=overview.footnotes(),
        baseline=baseline,
        seeds=runs["seed"].nunique(),
        headline=means,
        variants=variants,
        matrix=matrix,
        differences=comparison_table(headline) if len(headline) else None,
        beside=beside_published(summary, published, labels) if data == DATA else [],
        configs=config_differences(read, labels),
        drawn={
            "name": data,
            "baseline": baseline,
            "variants": labels,
            "short": [variant.short for variant in variants],
            "categories": [row.label for row in matrix.rows],
            "means": _by_metric(summary, "category", ("mean", "std", "n_seeds")),
            "differences": _by_metric(compared, "metric", ("difference", "low", "high", "p_holm")),
        },
    )


def _by_metric(table: pd.DataFrame, label: str, columns: tuple[str, ...]) -> dict[str, Any]:
    """{metric: {variant: {label: [columns]}}}."""
    found: dict[str, Any] = {}
    for row in records(table):
        by_variant = found.setdefault(row["metric"], {}).setdefault(row["variant"], {})
        by_variant[row[label]] = [row[column] for column in columns]
    return found
