"""The tables that a study has beside those of every report."""

from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.reports.cells import HEADINGS, records
from anomalib_rd.reports.compared import HEADLINE
from anomalib_rd.reports.formatting import MISSING
from anomalib_rd.reports.layout import Column, Notes, Row, Table
from anomalib_rd.results.statistics import (
    MIN_VARIANTS,
    choose_baselines,
    compare_variants,
    smallest_difference,
    spread_factors,
)
from anomalib_rd.results.table import drop_repeats

AGREEMENT = [
    Column(("metric", "")),
    Column(("Spearman's", "rho")),
    Column(("p", "(permutation)", "")),
    Column(("variants", "")),
    Column(("runs", "of each", "")),
]
SEEDS = (2, 3, 5, 10)


def agreement_table(agreement: pd.DataFrame) -> Table:
    """Does the validation rank the variants as the test does?

    Args:
        agreement: rows of `rank_agreement` of one data.
    """
    notes = Notes()
    rows = []
    for row in records(agreement):
        why = ""
        if np.isnan(row["rho"]):
            few = f"fewer than {MIN_VARIANTS} variants have both: no rank correlation"
            why = notes.mark(
                few if row["n"] < MIN_VARIANTS else "all variants are equal in one of both"
            )
        rho, p = _number(row["rho"], "+.2f") + why, _number(row["p"], ".3f")
        name = HEADINGS[row["metric"]].name
        rows.append(Row(row["category"], (name, rho, p, str(row["n"]), str(row["n_runs"]))))
    statement = (
        "Rank correlation over the variants, between the metric on held-out training images with "
        "synthetic defects and the same metric on the test images; +1: the same order."
    )
    remark = (
        "The variants' values are means over the categories and seeds that all of them have. p: "
        "two-sided, of no correlation. Neighbours in rank may differ by less than noise."
    )
    title = "Does the synthetic validation rank as the test does?"
    return Table(title, statement, "category", AGREEMENT, [rows], notes, [remark])


def spread_table(runs: pd.DataFrame) -> Table:
    """What differs by the seed alone, and from which difference on so many seeds would show it.

    Args:
        runs: of `load_runs`, one data and variant, at least 2 seeds.
    """
    notes, rows = Notes(), []
    counts = np.array([SEEDS, SEEDS])
    for metric in [m for m in HEADLINE if m in runs]:
        values = drop_repeats(runs).pivot(index="seed", columns="category", values=metric)
        means = values.dropna(axis=1, how="all").dropna().mean(axis=1)
        if len(means) < 2 or np.ptp(means) == 0:
            few = "fewer than 2 seeds have every category"
            why = notes.mark(few if len(means) < 2 else "the same with every seed")
            rows.append(Row(HEADINGS[metric].name, (MISSING + why, *[MISSING] * (1 + len(SEEDS)))))
            continue
        variance = means.var(ddof=1)
        least, most = (100 * variance**0.5 * factor for factor in spread_factors(len(means)))
        shown = 100 * smallest_difference(np.array([variance, variance]), counts)
        cells = [f"{100 * variance**0.5:.2f}", f"{least:.2f} to {most:.2f}"]
        rows.append(Row(HEADINGS[metric].name, (*cells, *(f"{value:.2f}" for value in shown))))
    columns = [Column(("std over seeds", "points")), Column(("true std, 95 %", "points"))]
    columns += [Column((f"{n} seeds each show from", "points")) for n in SEEDS]
    seeds, categories = runs["seed"].nunique(), runs["category"].nunique()
    statement = (
        f"Spread of the mean over {categories} {'category' if categories == 1 else 'categories'} "
        f"between {seeds} seeds, and the smallest true difference of two variants with this spread "
        "that a two-sided t-test (alpha 0.05) finds 4 times in 5."
    )
    return Table("What the seed alone does", statement, "metric", columns, [rows], notes, [])


def equal_budget_table(budgeted: pd.DataFrame) -> Table | None:
    """The variants against the baseline after the same number of epochs: who converges faster?

    Args:
        budgeted: of `budgets`, one data.

    Returns:
        None where there is one variant.
    """
    metrics = [m for m in HEADLINE if m in budgeted]
    sections: dict[str, list[Row]] = {}
    base = next(iter(choose_baselines(budgeted.assign(variant=budgeted["of"])).values()))
    for epochs, part in budgeted.groupby("epochs"):
        if base not in set(part["of"]):
            continue
        compared = compare_variants(part.assign(variant=part["of"]).drop(columns="of"), base)
        for variant, own in compared.groupby("variant", sort=False):
            of_metric = {row["metric"]: row for row in records(own)}
            cells = [_with_interval(of_metric.get(metric)) for metric in metrics]
            sections.setdefault(str(variant), []).append(Row(str(variant), (str(epochs), *cells)))
    if not sections:
        return None
    columns = [Column(("epochs", "")), *(Column((HEADINGS[m].name, "points")) for m in metrics)]
    statement = (
        "Each variant less the baseline after as many epochs, in percentage points, paired over "
        "category and seed, with the 95 % bootstrap interval over categories (of one: over seeds)."
    )
    title = f"Differences to {base} at equal budget"
    return Table(title, statement, "variant", columns, list(sections.values()), Notes(), [])


def _with_interval(row: dict[str, Any] | None) -> str:
    if row is None or np.isnan(row["difference"]):
        return MISSING
    middle, low, high = (f"{100 * row[name]:+.2f}" for name in ("difference", "low", "high"))
    return middle if np.isnan(row["low"]) else f"{middle} ({low} to {high})"


def _number(value: float, form: str) -> str:
    return MISSING if np.isnan(value) else format(value, form)
