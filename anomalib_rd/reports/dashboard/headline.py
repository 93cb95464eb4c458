"""The means of each variant, beside the baseline's and beside what others report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from anomalib_rd.reports.cells import records
from anomalib_rd.reports.formatting import (
    format_duration,
    format_percent,
    format_points,
    format_published,
    format_rate,
    format_std,
)
from anomalib_rd.reports.reported import source
from anomalib_rd.results.published import Published, compare
from anomalib_rd.results.record import parent_run
from anomalib_rd.results.table import MEAN_ALL
from anomalib_rd.results.variants import short_labels


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
