"""Result tables of runs: one per variant, an overview of variants, and all of a report."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.reports.formatting import MISSING, format_count, format_duration, format_percent
from anomalib_rd.reports.layout import Column, Notes, Row, Table
from anomalib_rd.reports.published_columns import (
    cells_beside,
    columns_beside,
    mean_rows,
    methods_beside,
)
from anomalib_rd.results.published import Published
from anomalib_rd.results.table import (
    GROUPS,
    MEAN_ALL,
    ORACLE,
    RUN_COLUMNS,
    category_table,
    drop_repeats,
    metric_columns,
)
from anomalib_rd.results.variants import shared_words, short_labels

HEADLINE = ("image_auroc", "pixel_auroc", "aupro")


def shown_metrics(runs: pd.DataFrame) -> list[str]:
    """The metrics that some run has; where none is defined, those of the headline."""
    known = metric_columns(runs)
    return [m for m in known if runs[m].notna().any()] or [m for m in HEADLINE if m in known]


def why_undefined(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(category, metric) -> why it is undefined there.

    Reasons that differ only in their numbers are of one kind. All categories that lack a metric
    for reasons of one kind get the same text, which names them, so that a footnote with it stands
    once.

    Args:
        runs: of `load_runs`.
    """
    kinds: dict[tuple[str, str], dict[str, str]] = {}
    for category, reasons in zip(runs["category"], runs["undefined"], strict=True):
        for metric, reason in reasons.items():
            kind = re.sub(r"\d+", "#", reason.removeprefix(f"{category}: "))
            kinds.setdefault((metric, kind), {})[str(category)] = reason
    return {
        (category, metric): _text(reasons)
        for (metric, _), reasons in kinds.items()
        for category in reasons
    }


def undefined_remarks(runs: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """One line for each kind of reason, with the metrics that no run has because of it.

    Args:
        runs: of `load_runs`.
        names: metric -> what the table calls it.
    """
    shown = set(shown_metrics(runs))
    metrics: dict[str, dict[str, None]] = {}
    for (_, metric), text in why_undefined(runs).items():
        if metric not in shown:
            metrics.setdefault(text, {})[names.get(metric, metric)] = None
    return [f"Not shown: {', '.join(found)}, {text}" for text, found in metrics.items()]


def _text(reasons: Mapping[str, str]) -> str:
    """The reasons of one kind, category -> reason, in one line."""
    categories: Sequence[str] = list(reasons)
    first = categories[0]
    text = reasons[first].removeprefix(f"{first}: ")
    if len({reason.removeprefix(f"{name}: ") for name, reason in reasons.items()}) > 1:
        text += f" in {first}, and alike in the others"
    return f"undefined in {', '.join(categories)}: {text}"


HEADINGS = {
    "image_auroc": Column(("image", "AUROC", "%"), 0),
    "image_ap": Column(("image", "AP", "%"), 0),
    "image_f1max": Column(("image", "F1max", "%"), 13),
    "pixel_auroc": Column(("pixel", "AUROC", "%"), 0),
    "pixel_ap": Column(("pixel", "AP", "%"), 10),
    "pixel_f1max": Column(("pixel", "F1max", "%"), 14),
    "aupro": Column(("AUPRO", "FPR<=0.3", "%"), 0),
    "aupro_5": Column(("AUPRO", "FPR<=0.05", "%"), 11),
    "pro_rd4ad": Column(("PRO", "per image", "%"), 1),
}
_BESIDE_PRIORITY = 2


def variant_table(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    published: Mapping[str, Published],
    with_means: bool,
) -> Table:
    """One variant: a row for each category, textures first, and the rows of means.

    Args:
        runs: the variant's runs.
        summary: their rows of `category_table`.
        published: what to show beside it, where it is of the same categories; may be empty.
        with_means: whether to add rows for methods that report only means.
    """
    notes = Notes()
    metrics = shown_metrics(runs)
    why = why_undefined(runs)
    cells = {(row["category"], row["metric"]): row for row in records(summary)}
    members = summary[["category", "group", "kind"]].drop_duplicates()
    singles = members[members["kind"] == "category"]
    names = set(singles["category"])

    methods = methods_beside(published, names)

    def row(label: str, of: set[str], strong: bool) -> Row:
        values = [_cell(cells[label, metric], runs, why, notes) for metric in metrics]
        defined = _defined(summary, of) if strong else {}
        return Row(label, (*values, *cells_beside(methods, of, defined)), strong)

    sections = []
    for group, plural in GROUPS.items():
        inside = singles[singles["group"] == group]["category"].tolist()
        rows = [row(name, {name}, False) for name in inside]
        if 1 < len(inside) < len(names):
            rows.append(row(f"mean {plural}", set(inside), True))
        sections.append(rows)
    if len(names) > 1:
        sections.append([row(MEAN_ALL, names, True)])

    columns = [*_headings(metrics), *columns_beside(methods, _BESIDE_PRIORITY)]
    if with_means:
        defined = _defined(summary, names)
        sections.append(mean_rows(published, names, defined, metrics, len(methods), beside=True))
    title = f"{runs['variant'].iloc[0]} on {runs['data'].iloc[0]}"
    kept = [section for section in sections if section]
    return Table(title, _statement(runs), "category", columns, kept, notes, _remarks(runs, metrics))


def overview_table(
    runs: pd.DataFrame, summary: pd.DataFrame, published: Mapping[str, Published]
) -> Table:
    """All variants of one data: a row for each with its means over the categories."""
    notes = Notes()
    metrics = shown_metrics(runs)
    short = short_labels(list(runs["variant"].unique()))
    sets = {v: frozenset(part["category"]) for v, part in runs.groupby("variant", sort=False)}
    rows = []
    for variant, part in summary[summary["category"] == MEAN_ALL].groupby("variant", sort=False):
        own = runs[runs["variant"] == variant]
        by_metric = {row["metric"]: row for row in records(part)}
        why = why_undefined(own)
        values = [_cell(by_metric[metric], own, why, notes) for metric in metrics]
        counts = (str(len(sets[variant])), str(own["seed"].nunique()))
        rows.append(Row(short[str(variant)], (*values, *counts)))
    columns = [*_headings(metrics), Column(("cate-", "gories", "")), Column(("seeds", ""))]
    remarks = _about_metrics(runs)
    sections: list[list[Row]] = [rows]
    if len(set(sets.values())) > 1:
        remarks.append("The variants cover different categories: their means do not compare.")
    else:
        (names,) = set(sets.values())
        defined = _defined(summary, names)
        sections.append(mean_rows(published, names, defined, metrics, blanks=2, beside=False))
    title = f"Means over categories on {runs['data'].iloc[0]}"
    kept = [section for section in sections if section]
    return Table(title, _statement(runs), "variant", columns, kept, notes, remarks)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's rows as dicts."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]


def what_all_share(variants: Iterable[str]) -> str:
    """A sentence, with the space after it, on what all of several variants have in common."""
    words = shared_words(list(variants))
    return f"All variants: {' '.join(words)}. " if words else ""


def _defined(summary: pd.DataFrame, names: Collection[str]) -> dict[str, set[str]]:
    """Metric -> those of the categories in which every variant has it.

    Args:
        summary: rows of `category_table` of one data.
        names: the categories.
    """
    singles = summary[(summary["kind"] == "category") & summary["category"].isin(set(names))]
    lacking = singles[singles["mean"].isna()].groupby("metric")["category"].agg(set)
    return {m: set(names) - lacking.get(m, set()) for m in singles["metric"].unique()}


def _headings(metrics: Sequence[str]) -> list[Column]:
    return [HEADINGS.get(m, Column((*m.rsplit("_", 1), "%"), 15)) for m in metrics]


def below_chance(metric: str, value: float) -> bool:
    """Whether a metric, a fraction, is worse than that of scores drawn at random."""
    return metric.endswith("_auroc") and value < 0.5


def _cell(
    row: Mapping[str, Any],
    runs: pd.DataFrame,
    why: Mapping[tuple[str, str], str],
    notes: Notes,
) -> str:
    """The value as "mean±std" in percent; undefined as "-"; with footnotes where due."""
    if np.isnan(row["mean"]):
        names = [row["category"]] if row["kind"] == "category" else list(runs["category"].unique())
        known = dict.fromkeys(why[n, row["metric"]] for n in names if (n, row["metric"]) in why)
        unknown = f"undefined in {', '.join(names)}: no reason on record"
        return MISSING + ",".join(map(notes.mark, known or [unknown]))
    marks = []
    missing = row["of_categories"] - row["n_categories"]
    if missing:
        marks.append(
            f"mean over {row['n_categories']} of {row['of_categories']} categories: "
            f"undefined in {missing}"
        )
    seeds = runs["seed"].nunique()
    if row["n_seeds"] == 0:
        marks.append("no seed has every category: the mean of the categories' means")
    elif row["n_seeds"] < seeds:
        which = ", those with every category" if row["kind"] == "mean" else ""
        marks.append(f"{row['n_seeds']} of {seeds} seeds{which}")
    if below_chance(row["metric"], row["mean"]):
        marks.append("below chance: an AUROC under 50 ranks the normal above the defective")
    return format_percent(row["mean"], row["std"]) + ",".join(map(notes.mark, marks))


def _statement(runs: pd.DataFrame) -> str:
    """What all variants share, protocol and data on one line."""
    seeds = sorted(runs["seed"].unique())
    sizes = ", ".join(runs["image_size"].dropna().unique())
    epochs = sorted(runs["epochs"].unique())
    span = f"{epochs[0]}-{epochs[-1]}" if len(epochs) > 1 else f"{epochs[0]}"
    categories = runs["category"].nunique()
    spread = " (± is the std over seeds)" if len(seeds) > 1 else ""
    seconds = runs["total_s"].median()
    time = "" if np.isnan(seconds) else f" A run takes {format_duration(seconds)} (median)."
    return (
        f"{what_all_share(runs['variant'].unique())}"
        f"Protocol: {', '.join(runs['headline'].unique())}, {span} "
        f"{'epoch' if span == '1' else 'epochs'}{f', {sizes} pixels' if sizes else ''}. "
        f"{'Seeds' if len(seeds) > 1 else 'Seed'} {', '.join(map(str, seeds))}{spread}. "
        f"Data: {runs['data'].iloc[0]}, "
        f"{format_count(categories, 'category', 'categories')}.{time}"
    )


def _about_metrics(runs: pd.DataFrame) -> list[str]:
    """Which metrics no run has, and what the records note about those that they have."""
    remarks = undefined_remarks(runs, {name: column.name for name, column in HEADINGS.items()})
    noted: dict[str, dict[str, None]] = {}
    for category, notes in zip(runs["category"], runs["notes"], strict=True):
        for note in notes:
            noted.setdefault(note, {})[str(category)] = None
    return remarks + [f"{', '.join(names)}: {note}" for note, names in noted.items()]


def _remarks(runs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    remarks = _about_metrics(runs)
    repeats = len(runs) - len(drop_repeats(runs))
    if repeats:
        remarks.append(f"{repeats} runs repeat a category and seed: the last by path counts.")
    if runs["unified"].any():
        remarks.append("One model for all these categories, judged on each.")
    oracle = {f"{ORACLE}{m}": m for m in metrics if f"{ORACLE}{m}" in runs}
    if oracle and runs[list(oracle)].notna().any(axis=None):
        best = runs[[*RUN_COLUMNS, *oracle]].rename(columns=oracle)
        table = category_table(best)
        means = table[(table["category"] == MEAN_ALL) & table["mean"].notna()]
        values = ", ".join(
            f"{' '.join(HEADINGS[row['metric']].heading[:2])} "
            f"{format_percent(row['mean'], row['std'])}"
            for row in records(means)
            if row["metric"] in HEADINGS and HEADINGS[row["metric"]].priority == 0
        )
        remarks.append(f"Oracle (best epoch picked on the test set, not the headline), %: {values}")
    return remarks
