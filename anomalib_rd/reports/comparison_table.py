"""The ablation matrix: differences to the baseline, and in words whether they are noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.reports.formatting import MISSING, format_points
from anomalib_rd.reports.layout import Column, Notes, Row, Table
from anomalib_rd.reports.tables import HEADINGS, records, what_all_share
from anomalib_rd.results.statistics import ALPHA, MIN_UNITS_FOR_P, MOST_SEEDS, spread_factors
from anomalib_rd.results.variants import short_labels

COLUMNS = [
    Column(("metric", "")),
    Column(("differ-", "ence", "points")),
    Column(("95 % CI", "points")),
    Column(("p", "(Holm)", ""), 1),
    Column(("pairs", "")),
    Column(("seeds", "show from", "points"), 2),
    Column(("seeds", "needed", ""), 3),
]


def comparison_table(compared: pd.DataFrame) -> Table:
    """One data's comparisons: a section for each variant, a row for each metric.

    Args:
        compared: rows of `compare_variants` with one data and metrics of ``HEADLINE``, at
            least one.
    """
    notes = Notes()
    first = compared.iloc[0]
    labels = [first["baseline"], *compared["variant"].unique()]
    short = short_labels(labels)
    sections, verdicts = [], ["Is it noise? By the spread over seeds:"]
    for label, part in compared.groupby("variant", sort=False):
        rows, variant = records(part), short[str(label)]
        sections.append([Row(variant, _cells(row, notes)) for row in rows])
        verdicts += [f"{variant}: {verdict(row, _family(compared, row))}" for row in rows]
    title = f"Differences to {short[first['baseline']]} on {first['data']}"
    statement = (
        f"{what_all_share(labels)}Each variant less the baseline, in percentage points: the mean "
        "over the categories of the mean over the seeds that both have. Other metrics: "
        "comparisons.csv."
    )
    remarks = [*verdicts, *_method(compared)]
    return Table(title, statement, "variant", COLUMNS, sections, notes, remarks)


def verdict(row: Mapping[str, Any], comparisons: int) -> str:
    """In words, on one line: is this difference more than the spread over seeds?

    Args:
        row: of `compare_variants`.
        comparisons: how many p-values its own was corrected with, itself included.
    """
    if np.isnan(row["difference"]):
        return f"{_metric(row)}: no category in common with the baseline"
    head = f"{format_points(row['difference'])} {_metric(row)}: "
    seeds = row["n_seeds"]
    if seeds < 2:
        return head + _no_spread(row)
    if np.isnan(row["p_seeds"]):
        return head + f"the same with each of the {seeds} seeds: there is no spread to judge by"
    shows = f"differences from {100 * row['smallest']:.2f} on"
    if row["p_seeds_holm"] < ALPHA:
        p = _p_value(row["p_seeds_holm"])
        return head + f"more than noise (p {p} over {seeds} seeds, which show {shows})"
    alone = ""
    if row["p_seeds"] < ALPHA:
        alone = f" among {comparisons} comparisons (alone p {_p_value(row['p_seeds'])})"
    return head + (
        f"not told apart from noise{alone}; {seeds} seeds show {shows}, "
        f"this one would need {_seeds(row['needed_seeds'])} seeds"
    )


def _no_spread(row: Mapping[str, Any]) -> str:
    if row["n_seeds"] == 1 and row["n_pairs"] in (0, row["n_categories"]):
        return "one seed: the spread is unknown; run seed=0,1,2"
    return (
        "fewer than two seeds have every category in both: the spread is unknown; "
        "run what is missing"
    )


def _cells(row: Mapping[str, Any], notes: Notes) -> tuple[str, ...]:
    marks = []
    if not row["paired"]:
        marks.append("no category and seed in common: means over each one's own seeds")
    elif row["n_left_out"]:
        marks.append(f"left out, for only one of the two has them: {row['n_left_out']}")
    return (
        _metric(row),
        format_points(row["difference"]),
        _interval(row, notes),
        MISSING if np.isnan(row["p_holm"]) else _p_value(row["p_holm"]),
        str(row["n_pairs"]) + ",".join(map(notes.mark, marks)),
        MISSING if np.isnan(row["smallest"]) else f"{100 * row['smallest']:.2f}",
        MISSING if np.isnan(row["needed_seeds"]) else _seeds(row["needed_seeds"]),
    )


def _interval(row: Mapping[str, Any], notes: Notes) -> str:
    if np.isnan(row["low"]):
        return MISSING + notes.mark("fewer than 2 pairs: no interval")
    text = f"{format_points(row['low'])} to {format_points(row['high'])}"
    count = row["n_resampled"]
    if count >= MIN_UNITS_FOR_P:
        return text
    return text + notes.mark(
        f"{count} {row['resampled']} are few: the interval is too narrow, and p cannot be below "
        f"{2.0 ** (1 - count):.2g}"
    )


def _method(compared: pd.DataFrame) -> list[str]:
    """How the numbers were made, and what they cannot say."""
    units = " or ".join(compared["resampled"].unique())
    variants = compared["variant"].nunique()
    holm = f", Holm-corrected over {variants} variants" if variants > 1 else ""
    lines = [
        f"CI and p: does it hold across {units}? Bootstrap (BCa) of the {units}, and flips of "
        f"their signs (two-sided{holm}; each metric by itself).",
        "Noise: would other seeds show it on these categories? A two-sided t-test over seeds"
        f"{holm}. Seeds show from: the smallest difference found 4 times in 5 at alpha "
        f"{ALPHA} in one comparison.",
    ]
    seeds = compared["n_seeds"][compared["n_seeds"] > 1]
    if len(seeds):
        least, most = spread_factors(int(seeds.min()))
        lines.append(
            f"The spread itself is estimated from {seeds.min()} seeds: the true one may be "
            f"{least:.2g} to {most:.2g} times as large (95 %), and so the seeds needed are rough."
        )
    return lines


def _family(compared: pd.DataFrame, row: Mapping[str, Any]) -> int:
    same = compared[compared["metric"] == row["metric"]]
    return int(same["p_seeds"].notna().sum())


def _metric(row: Mapping[str, Any]) -> str:
    return HEADINGS[row["metric"]].name


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _seeds(needed: float) -> str:
    return f"{needed:.0f}" if np.isfinite(needed) else f"more than {MOST_SEEDS}"
