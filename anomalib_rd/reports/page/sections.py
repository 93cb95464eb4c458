"""A data set's section of the report page: its tables, and the numbers for its plots."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from anomalib_rd.reports.comparison_table import comparison_table
from anomalib_rd.reports.formatting import (
    MISSING,
    format_count,
    format_duration,
    format_percent,
    format_points,
    format_published,
    format_rate,
    format_std,
)
from anomalib_rd.reports.page.runs import PageData, Run
from anomalib_rd.reports.published_columns import describe_source, method_name
from anomalib_rd.reports.result_tables import HEADLINE, metrics_to_show, overview_table
from anomalib_rd.reports.table_model import Table
from anomalib_rd.results.published import DATA, Published, compare
from anomalib_rd.results.record import parent_run
from anomalib_rd.results.runs_table import GROUPS, MEAN_ALL, drop_repeats
from anomalib_rd.results.variants import short_labels, variant_settings

NARROWEST = 0.02  # narrower ranges of a metric do not span all colours


@dataclass(frozen=True)
class Cell:
    """A mean of a metric.

    Attributes:
        value: in percent, to sort by; None where undefined.
        depth: of its colour: 0 for the metric's best value on this data, 1 for the worst.
        note: a tooltip.
        run: key of one of its runs, None for means over categories.
        difference: to the baseline, in points; may be empty.
        interval: the 95 % interval of the difference; may be empty.
    """

    metric: str
    text: str
    std: str
    value: float | None
    depth: float = 0.0
    note: str = ""
    run: str | None = None
    difference: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """A category, or a mean over several: a cell for each metric and variant."""

    label: str
    group: str
    cells: list[Cell]


@dataclass(frozen=True)
class Variant:
    """A variant's means; ``short`` is its label without what all variants have in common.

    Durations and rates are medians over its runs.
    """

    label: str
    short: str
    is_baseline: bool
    runs: int
    seeds: str
    categories: int
    means: list[Cell]
    train: str
    total: str
    train_rate: str
    test_rate: str


@dataclass(frozen=True)
class PublishedMean:
    """A published mean of a metric, and the difference of each variant to it, in points."""

    metric: str
    method: str
    value: str
    differences: list[str]
    source: str


@dataclass(frozen=True)
class Section:
    """A data set's section.

    Attributes:
        headline: metrics of the table of variants.
        metrics: metrics of the table of categories.
        configs: (config key, its value in each variant) where variants differ.
        plots: numbers for the plots of page.js.
    """

    data: str
    statement: str
    notes: list[str]
    baseline: str
    seeds: int
    headline: list[str]
    metrics: list[str]
    variants: list[Variant]
    rows: list[Row]
    means: list[Row]
    differences: Table | None
    published: list[PublishedMean]
    configs: list[tuple[str, list[str]]]
    plots: dict[str, Any]


def make_sections(data: PageData, published: Mapping[str, Published]) -> list[Section]:
    """A section for each data set, in the order of the runs."""
    return [_section(str(name), data, published) for name in dict.fromkeys(data.table["data"])]


def headline_metrics(metrics: Sequence[str]) -> list[str]:
    """Those of the metrics that are in the table of variants."""
    return [metric for metric in HEADLINE if metric in metrics]


def _section(name: str, data: PageData, published: Mapping[str, Published]) -> Section:
    table, summary, compared = (
        part[part["data"] == name] for part in (data.table, data.summary, data.compared)
    )
    own = [run for run in data.runs if run.image_set.data == name]
    headline = headline_metrics(metrics_to_show(table))
    # One choice of metric for the whole page: all sections have the same columns.
    metrics = metrics_to_show(data.table)
    variants = _variants(table, summary, compared, data.baselines[name], headline)
    labels = [variant.label for variant in variants]
    overview = overview_table(table, summary, {})
    rows, means = _category_rows(table, summary, metrics, {run.row["run"]: run.key for run in own})
    differences = compared[compared["metric"].isin(HEADLINE)]
    return Section(
        data=name,
        statement=overview.statement,
        notes=overview.footnotes(),
        baseline=data.baselines[name],
        seeds=table["seed"].nunique(),
        headline=headline,
        metrics=metrics,
        variants=variants,
        rows=rows,
        means=means,
        differences=comparison_table(differences) if len(differences) else None,
        published=_published_means(summary, published, labels) if name == DATA else [],
        configs=_config_differences(own, labels),
        plots={
            "name": name,
            "baseline": data.baselines[name],
            "variants": labels,
            "short": [variant.short for variant in variants],
            "categories": [row.label for row in rows],
            "means": _nest(summary, "category", ("mean", "std", "n_seeds")),
            "differences": _nest(compared, "metric", ("difference", "low", "high", "p_holm")),
        },
    )


def _nest(table: pd.DataFrame, label: str, columns: tuple[str, ...]) -> dict[str, Any]:
    """{metric: {variant: {label: [columns]}}}."""
    nested: dict[str, Any] = {}
    for row in table.to_dict("records"):
        by_variant = nested.setdefault(row["metric"], {}).setdefault(row["variant"], {})
        by_variant[row[label]] = [row[column] for column in columns]
    return nested


def _make_cell(row: Mapping[Any, Any], **fields: Any) -> Cell:
    """A cell of a row of `category_table`."""
    mean = row["mean"]
    value = None if math.isnan(mean) else round(100 * mean, 6)
    return Cell(row["metric"], format_percent(mean), format_std(row["std"]), value, **fields)


def _variants(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    compared: pd.DataFrame,
    baseline: str,
    metrics: Sequence[str],
) -> list[Variant]:
    """The variants of one data set, in the order of its runs, with a mean for each metric."""
    overall = summary[summary["category"] == MEAN_ALL].to_dict("records")
    means = {(row["variant"], row["metric"]): row for row in overall}
    differences = {(r["variant"], r["metric"]): r for r in compared.to_dict("records")}

    def mean_cell(variant: str, metric: str) -> Cell:
        row, against = means[variant, metric], differences.get((variant, metric))
        if against is None:
            return _make_cell(row)
        ends = [format_points(against[end]) for end in ("low", "high")]
        interval = "" if math.isnan(against["low"]) else " to ".join(ends)
        return _make_cell(row, difference=format_points(against["difference"]), interval=interval)

    short = short_labels(list(dict.fromkeys(table["variant"])))
    return [
        Variant(
            label=str(label),
            short=short[str(label)],
            is_baseline=label == baseline,
            runs=own["run"].map(parent_run).nunique(),
            seeds=", ".join(map(str, sorted(own["seed"].unique()))),
            categories=own["category"].nunique(),
            means=[mean_cell(str(label), metric) for metric in metrics],
            train=format_duration(own["train_s"].median()),
            total=format_duration(own["total_s"].median()),
            train_rate=format_rate(own["train_images_per_s"].median()),
            test_rate=format_rate(own["test_images_per_s"].median()),
        )
        for label, own in table.groupby("variant", sort=False)
    ]


def _category_rows(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    metrics: Sequence[str],
    keys: Mapping[str, str],
) -> tuple[list[Row], list[Row]]:
    """Rows of categories and of means, with a cell for each metric and variant.

    Args:
        table: one data set's rows of `load_runs`.
        summary: its rows of `category_table`.
        metrics: of the columns.
        keys: folder of a run -> its key in links.
    """
    variants = list(dict.fromkeys(table["variant"]))
    found = {(r["category"], r["metric"], r["variant"]): r for r in summary.to_dict("records")}
    ranges = {name: _color_range(summary["mean"][summary["metric"] == name]) for name in metrics}
    first = drop_repeats(table).drop_duplicates(["variant", "category"])
    links = {(r["variant"], r["category"]): keys[r["run"]] for r in first.to_dict("records")}
    reasons = {
        (row["variant"], row["category"], metric): reason
        for row in table.to_dict("records")
        for metric, reason in row["undefined"].items()
    }

    def make_cell(label: str, metric: str, variant: str) -> Cell:
        row = found.get((label, metric, variant))
        if row is None:
            return Cell(metric, "", "", None, note="not run")
        run = links.get((variant, label))
        if math.isnan(row["mean"]):
            return _make_cell(row, note=reasons.get((variant, label, metric), "undefined"), run=run)
        low, high = ranges[metric]
        depth = round((high - row["mean"]) / (high - low), 3)
        return _make_cell(row, depth=depth, note=_describe_coverage(row), run=run)

    def make_rows(kind: str) -> list[Row]:
        members = summary[summary["kind"] == kind][["category", "group"]].drop_duplicates()
        order = [*GROUPS, "all"]
        return [
            Row(label, group, [make_cell(label, m, v) for m in metrics for v in variants])
            for label, group in sorted(
                members.itertuples(index=False, name=None), key=lambda row: order.index(row[1])
            )
        ]

    rows, means = make_rows("category"), make_rows("mean")
    if len({row.group for row in rows}) == 1:  # the group's mean is the mean of all
        means = means[-1:]
    return rows, means if len(rows) > 1 else []


def _color_range(means: pd.Series) -> tuple[float, float]:
    if means.isna().all():
        return 0.0, 1.0
    return min(means.min(), means.max() - NARROWEST), means.max()


def _describe_coverage(row: Mapping[Any, Any]) -> str:
    parts = []
    if row["n_categories"] < row["of_categories"]:
        parts.append(f"{row['n_categories']} of {row['of_categories']} categories")
    if row["n_seeds"] == 0:
        parts.append("no seed covers every category: mean of the category means")
    else:
        parts.append(format_count(row["n_seeds"], "seed"))
    return "; ".join(parts)


def _published_means(
    summary: pd.DataFrame, published: Mapping[str, Published], variants: Sequence[str]
) -> list[PublishedMean]:
    """Published means over the same categories with the same protocol.

    Where variants cover different categories, each published mean has its own line.
    """
    compared = compare(summary, published)
    compared = compared[compared["category"] == MEAN_ALL]
    lines = []
    for (metric, key, value), part in compared.groupby(
        ["metric", "method", "reported"], sort=False
    ):
        method = published[str(key)]
        points = dict(zip(part["variant"], part["difference"], strict=True))
        lines.append(
            PublishedMean(
                metric=str(metric),
                method=method_name(method),
                value=format_published(float(str(value))),
                differences=[
                    format_points(points[v] / 100) if v in points else "" for v in variants
                ],
                source=describe_source(method),
            )
        )
    return lines


def _config_differences(
    runs: Sequence[Run], variants: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Config keys with one value in each variant that differ between variants."""
    values: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        for key, value in variant_settings(run.record["config"]):
            text = value if isinstance(value, str) else json.dumps(value)
            values.setdefault(key, {}).setdefault(run.row["variant"], set()).add(text)
    differences = []
    for key, by_variant in values.items():
        if all(len(texts) == 1 for texts in by_variant.values()):
            line = [next(iter(by_variant.get(variant, {MISSING}))) for variant in variants]
            if len(set(line)) > 1:
                differences.append((key, line))
    return differences
