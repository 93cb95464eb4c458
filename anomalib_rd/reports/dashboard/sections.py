"""One data set's part of the page: tables as written, and numbers for the plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from anomalib_rd.reports.cells import HEADINGS, overview_table, records
from anomalib_rd.reports.compared import HEADLINE, comparison_table
from anomalib_rd.reports.dashboard.collected import Collected
from anomalib_rd.reports.dashboard.differences import config_differences
from anomalib_rd.reports.dashboard.headline import Beside, Variant, beside_published, variant_lines
from anomalib_rd.reports.dashboard.matrix import Matrix, category_matrix
from anomalib_rd.reports.layout import Table
from anomalib_rd.reports.undefined import shown_metrics
from anomalib_rd.results.published import DATA, Published


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
