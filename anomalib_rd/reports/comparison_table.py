"""Differences of variants to the baseline, and whether they exceed the noise of the seeds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.reports.formatting import MISSING, format_points
from anomalib_rd.reports.result_tables import describe_shared_words, metric_name
from anomalib_rd.reports.table_model import Column, Notes, Row, Table
from anomalib_rd.results.statistics import ALPHA, MIN_UNITS_FOR_P, MOST_SEEDS, spread_factors
from anomalib_rd.results.variants import short_labels

COLUMNS = [
    Column(("metric", "")),
    Column(("differ-", "ence", "points")),
    Column(("95 % CI", "points")),
    Column(("p", "(Holm)", ""), 1),
    Column(("pairs", "")),
    Column(("detectable", "from", "points"), 2),
    Column(("seeds", "needed", ""), 3),
]


def comparison_table(compared: pd.DataFrame) -> Table:
    """A section for each variant, a row for each metric.

    Args:
        compared: rows of `compare_variants` on one data set, at least one.
    """
    notes = Notes()
    first = compared.iloc[0]
    labels = [first["baseline"], *compared["variant"].unique()]
    short = short_labels(labels)
    tested = compared.groupby("metric")["p_seeds"].count()
    sections, verdicts = [], ["Larger than the noise of the seeds?"]
    for label, part in compared.groupby("variant", sort=False):
        rows, variant = part.to_dict("records"), short[str(label)]
        sections.append([Row(variant, _cells(row, notes)) for row in rows])
        verdicts += [f"{variant}: {verdict(row, tested[row['metric']])}" for row in rows]
    return Table(
        title=f"Differences to {short[first['baseline']]} on {first['data']}",
        statement=f"{describe_shared_words(labels)}Variant minus baseline in percentage points: "
        "mean over the categories of the mean over the seeds that both have. "
        "Other metrics: comparisons.csv.",
        label="variant",
        columns=COLUMNS,
        sections=sections,
        notes=notes,
        remarks=[*verdicts, *_describe_method(compared)],
    )


def verdict(row: Mapping[Any, Any], comparisons: int) -> str:
    """One line: is the difference larger than the noise of the seeds?

    Args:
        row: of `compare_variants`.
        comparisons: number of p-values that were corrected together.
    """
    name, seeds = metric_name(row["metric"]), row["n_seeds"]
    if np.isnan(row["difference"]):
        return f"{name}: no category in common with the baseline"
    head = f"{format_points(row['difference'])} {name}: "
    if seeds < 2:
        if seeds == 1 and row["n_pairs"] in (0, row["n_categories"]):
            return f"{head}unknown, only one seed; run seed=0,1,2"
        return f"{head}unknown, fewer than 2 seeds cover every category in both; run the missing"
    if np.isnan(row["p_seeds"]):
        return f"{head}unknown, all {seeds} seeds give the same difference"
    detectable = f"{seeds} seeds detect {100 * row['smallest']:.2f} or more"
    if row["p_seeds_holm"] < ALPHA:
        return f"{head}significant (p {_format_p(row['p_seeds_holm'])}; {detectable})"
    alone = ""
    if row["p_seeds"] < ALPHA:
        alone = f" in {comparisons} comparisons (alone p {_format_p(row['p_seeds'])})"
    needed = _format_seeds(row["needed_seeds"])
    return f"{head}not significant{alone}; {detectable}, this one needs {needed} seeds"


def _cells(row: Mapping[Any, Any], notes: Notes) -> tuple[str, ...]:
    marks = []
    if not row["paired"]:
        marks.append("no category and seed in common: difference of the means over own seeds")
    elif row["n_left_out"]:
        marks.append(f"not compared, present in only one of the two: {row['n_left_out']}")
    return (
        metric_name(row["metric"]),
        format_points(row["difference"]),
        _interval(row, notes),
        MISSING if np.isnan(row["p_holm"]) else _format_p(row["p_holm"]),
        str(row["n_pairs"]) + ",".join(map(notes.add, marks)),
        MISSING if np.isnan(row["smallest"]) else f"{100 * row['smallest']:.2f}",
        MISSING if np.isnan(row["needed_seeds"]) else _format_seeds(row["needed_seeds"]),
    )


def _interval(row: Mapping[Any, Any], notes: Notes) -> str:
    if np.isnan(row["low"]):
        return MISSING + notes.add("fewer than 2 pairs: no interval")
    text = f"{format_points(row['low'])} to {format_points(row['high'])}"
    count = row["n_resampled"]
    if count >= MIN_UNITS_FOR_P:
        return text
    return text + notes.add(
        f"only {count} {row['resampled']}: the interval is too narrow, and p cannot be below "
        f"{2.0 ** (1 - count):.2g}"
    )


def _describe_method(compared: pd.DataFrame) -> list[str]:
    units = " or ".join(compared["resampled"].unique())
    variants = compared["variant"].nunique()
    holm = f", Holm-corrected over {variants} variants" if variants > 1 else ""
    lines = [
        f"CI and p: does the difference hold across {units}? BCa bootstrap and sign-flip test "
        f"over {units} (two-sided{holm}; each metric separately).",
        f"Significant: would other seeds show it on these categories? Two-sided t-test over seeds"
        f"{holm}. Detectable from: the smallest difference that one comparison finds in 4 of 5 "
        f"cases at alpha {ALPHA}.",
    ]
    seeds = compared["n_seeds"][compared["n_seeds"] > 1]
    if len(seeds):
        low, high = spread_factors(int(seeds.min()))
        lines.append(
            f"The standard deviation is estimated from {seeds.min()} seeds: the true one may be "
            f"{low:.2g} to {high:.2g} times as large (95 %), so the seeds needed are rough."
        )
    return lines


def _format_p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _format_seeds(needed: float) -> str:
    return f"{needed:.0f}" if np.isfinite(needed) else f"more than {MOST_SEEDS}"
