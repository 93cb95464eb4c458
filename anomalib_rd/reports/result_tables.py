"""Result tables: one variant by category, and the means of all variants."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.reports.formatting import MISSING, format_count, format_duration, format_percent
from anomalib_rd.reports.published_columns import (
    methods_with_columns,
    published_cells,
    published_columns,
    published_mean_rows,
)
from anomalib_rd.reports.table_model import Column, Notes, Row, Table
from anomalib_rd.results.published import Published
from anomalib_rd.results.runs_table import (
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
HEADINGS = {
    "image_auroc": Column(("image", "AUROC", "%"), 0),
    "image_ap": Column(("image", "AP", "%"), 0),
    "image_f1max": Column(("image", "F1max", "%"), 13),
    "pixel_auroc": Column(("pixel", "AUROC", "%"), 0),
    "pixel_ap": Column(("pixel", "AP", "%"), 10),
    "pixel_f1max": Column(("pixel", "F1max", "%"), 14),
    "aupro": Column(("AUPRO", "FPR≤0.3", "%"), 0),
    "aupro_5": Column(("AUPRO", "FPR≤0.05", "%"), 11),
    "pro_rd4ad": Column(("PRO", "per image", "%"), 1),
}
_PUBLISHED_PRIORITY = 2


def metric_heading(metric: str) -> Column:
    """The metric's column; other metrics than ours come last."""
    return HEADINGS.get(metric) or Column((*metric.rsplit("_", 1), "%"), 15)


def metric_name(metric: str) -> str:
    """Such as "image AUROC"."""
    return HEADINGS[metric].name if metric in HEADINGS else metric.replace("_", " ")


def is_below_chance(metric: str, value: float) -> bool:
    """Whether an AUROC, a fraction, is worse than that of random scores."""
    return metric.endswith("_auroc") and value < 0.5


def variant_table(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    published: Mapping[str, Published],
    with_means: bool,
) -> Table:
    """One variant: a row for each category, textures first, then rows of means.

    Args:
        runs: the variant's runs.
        summary: their rows of `category_table`.
        published: results to show next to ours, if they cover the same categories.
        with_means: whether to add rows for methods that report only means.
    """
    notes = Notes()
    metrics = metrics_to_show(runs)
    reasons = undefined_reasons(runs)
    means = {(row["category"], row["metric"]): row for row in summary.to_dict("records")}
    members = summary[["category", "group", "kind"]].drop_duplicates()
    singles = members[members["kind"] == "category"]
    names = set(singles["category"])
    methods = methods_with_columns(published, names)

    def make_row(label: str, categories: set[str], is_mean: bool) -> Row:
        values = [_mean_cell(means[label, metric], runs, reasons, notes) for metric in metrics]
        defined = _defined_categories(summary, categories) if is_mean else {}
        cells = (*values, *published_cells(methods, categories, defined))
        return Row(label, cells, bold=is_mean)

    sections = []
    for group, plural in GROUPS.items():
        inside = singles[singles["group"] == group]["category"].tolist()
        rows = [make_row(name, {name}, False) for name in inside]
        if 1 < len(inside) < len(names):
            rows.append(make_row(f"mean {plural}", set(inside), True))
        sections.append(rows)
    if len(names) > 1:
        sections.append([make_row(MEAN_ALL, names, True)])
    if with_means:
        means_only = {key: method for key, method in published.items() if not method.categories}
        defined = _defined_categories(summary, names)
        sections.append(published_mean_rows(means_only, names, defined, metrics, len(methods)))
    columns = [metric_heading(metric) for metric in metrics]
    return Table(
        title=f"{runs['variant'].iloc[0]} on {runs['data'].iloc[0]}",
        statement=_protocol_statement(runs),
        label="category",
        columns=[*columns, *published_columns(methods, _PUBLISHED_PRIORITY)],
        sections=[section for section in sections if section],
        notes=notes,
        remarks=[*_metric_remarks(runs), *_run_remarks(runs, metrics)],
    )


def overview_table(
    runs: pd.DataFrame, summary: pd.DataFrame, published: Mapping[str, Published]
) -> Table:
    """All variants on one data set: a row for each with its means over the categories."""
    notes = Notes()
    metrics = metrics_to_show(runs)
    short = short_labels(list(runs["variant"].unique()))
    covered = {v: frozenset(part["category"]) for v, part in runs.groupby("variant", sort=False)}
    rows = []
    for variant, part in summary[summary["category"] == MEAN_ALL].groupby("variant", sort=False):
        own = runs[runs["variant"] == variant]
        means = {row["metric"]: row for row in part.to_dict("records")}
        reasons = undefined_reasons(own)
        values = [_mean_cell(means[metric], own, reasons, notes) for metric in metrics]
        counts = (str(len(covered[variant])), str(own["seed"].nunique()))
        rows.append(Row(short[str(variant)], (*values, *counts)))
    columns = [metric_heading(metric) for metric in metrics]
    sections, remarks = [rows], _metric_remarks(runs)
    if len(set(covered.values())) > 1:
        remarks.append("The variants cover different categories: do not compare their means.")
    else:
        (names,) = set(covered.values())
        defined = _defined_categories(summary, names)
        sections.append(published_mean_rows(published, names, defined, metrics, empty_cells=2))
    return Table(
        title=f"Means over categories on {runs['data'].iloc[0]}",
        statement=_protocol_statement(runs),
        label="variant",
        columns=[*columns, Column(("cate-", "gories", "")), Column(("seeds", ""))],
        sections=[section for section in sections if section],
        notes=notes,
        remarks=remarks,
    )


def metrics_to_show(runs: pd.DataFrame) -> list[str]:
    """The metrics that are defined in some run; the headline metrics if none is."""
    metrics = metric_columns(runs)
    defined = [m for m in metrics if runs[m].notna().any()]
    return defined or [m for m in HEADLINE if m in metrics]


def one_run_per_category(runs: pd.DataFrame) -> pd.DataFrame:
    """The run with the lowest seed of each category, textures first."""
    lowest = runs.sort_values("seed", kind="stable").drop_duplicates("category")
    ordered = lowest.assign(is_object=lowest["group"] != "texture")
    return ordered.sort_values(["is_object", "category"])


def undefined_reasons(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(category, metric) -> why it is undefined there.

    Reasons that differ only in their numbers are merged: all their categories get one text,
    which names them, so that it becomes one footnote.
    """
    kinds: dict[tuple[str, str], dict[str, str]] = {}
    for category, undefined in zip(runs["category"], runs["undefined"], strict=True):
        for metric, reason in undefined.items():
            reason = reason.removeprefix(f"{category}: ")
            kinds.setdefault((metric, re.sub(r"\d+", "#", reason)), {})[str(category)] = reason
    texts = {}
    for (metric, _), reasons in kinds.items():
        first = next(iter(reasons))
        text = f"undefined in {', '.join(reasons)}: {reasons[first]}"
        if len(set(reasons.values())) > 1:
            text += f" in {first}, similarly in the others"
        texts.update({(category, metric): text for category in reasons})
    return texts


def describe_shared_words(variants: Iterable[str]) -> str:
    """What the labels of all variants have in common, with a space after it; may be empty."""
    words = shared_words(list(variants))
    return f"All variants: {' '.join(words)}. " if words else ""


def _defined_categories(summary: pd.DataFrame, names: Collection[str]) -> dict[str, set[str]]:
    """Metric -> the categories in which it is defined for every variant."""
    singles = summary[(summary["kind"] == "category") & summary["category"].isin(set(names))]
    undefined = singles[singles["mean"].isna()].groupby("metric")["category"].agg(set)
    return {m: set(names) - undefined.get(m, set()) for m in singles["metric"].unique()}


def _mean_cell(
    row: Mapping[Any, Any],
    runs: pd.DataFrame,
    reasons: Mapping[tuple[str, str], str],
    notes: Notes,
) -> str:
    """ "mean±std" in percent, or a dash, with the marks of its footnotes."""
    if np.isnan(row["mean"]):
        names = [row["category"]] if row["kind"] == "category" else list(runs["category"].unique())
        keys = [(name, row["metric"]) for name in names]
        known = dict.fromkeys(reasons[key] for key in keys if key in reasons)
        unknown = f"undefined in {', '.join(names)}: no reason recorded"
        return MISSING + ",".join(map(notes.add, known or [unknown]))
    texts = []
    missing = row["of_categories"] - row["n_categories"]
    if missing:
        texts.append(
            f"mean over {row['n_categories']} of {row['of_categories']} categories: "
            f"undefined in {missing}"
        )
    seeds = runs["seed"].nunique()
    if row["n_seeds"] == 0:
        texts.append("no seed covers every category: mean of the category means")
    elif row["n_seeds"] < seeds:
        which = ": those that cover every category" if row["kind"] == "mean" else ""
        texts.append(f"{row['n_seeds']} of {seeds} seeds{which}")
    if is_below_chance(row["metric"], row["mean"]):
        texts.append("below chance: AUROC under 50 % ranks normal images above defective ones")
    return format_percent(row["mean"], row["std"]) + ",".join(map(notes.add, texts))


def _protocol_statement(runs: pd.DataFrame) -> str:
    """Protocol, seeds and data that all variants share."""
    seeds = sorted(runs["seed"].unique())
    sizes = ", ".join(runs["image_size"].dropna().unique())
    first, last = runs["epochs"].min(), runs["epochs"].max()
    epochs = format_count(last, "epoch") if first == last else f"{first}-{last} epochs"
    categories = format_count(runs["category"].nunique(), "category", "categories")
    seconds = runs["total_s"].median()
    return (
        f"{describe_shared_words(runs['variant'].unique())}"
        f"Protocol: {', '.join(runs['headline'].unique())}, {epochs}"
        f"{f', {sizes} pixels' if sizes else ''}. "
        f"{'Seeds' if len(seeds) > 1 else 'Seed'} {', '.join(map(str, seeds))}"
        f"{' (± is the standard deviation over seeds)' if len(seeds) > 1 else ''}. "
        f"Data: {runs['data'].iloc[0]}, {categories}."
        + ("" if np.isnan(seconds) else f" Median time per run: {format_duration(seconds)}.")
    )


def _metric_remarks(runs: pd.DataFrame) -> list[str]:
    """Metrics that are undefined in all runs, and the notes of the records on the others."""
    shown = metrics_to_show(runs)
    hidden: dict[str, dict[str, None]] = {}
    for (_, metric), text in undefined_reasons(runs).items():
        if metric not in shown:
            hidden.setdefault(text, {})[metric_name(metric)] = None
    noted: dict[str, dict[str, None]] = {}
    for category, notes in zip(runs["category"], runs["notes"], strict=True):
        for note in notes:
            noted.setdefault(note, {})[str(category)] = None
    remarks = [f"Not shown: {', '.join(names)}, {text}" for text, names in hidden.items()]
    return remarks + [f"{', '.join(names)}: {note}" for note, names in noted.items()]


def _run_remarks(runs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    remarks = []
    repeats = len(runs) - len(drop_repeats(runs))
    if repeats:
        repeated = format_count(repeats, "run repeats", "runs repeat")
        remarks.append(f"{repeated} a category and seed: only the last by path is used.")
    if runs["unified"].any():
        remarks.append("One model for all these categories, evaluated on each.")
    oracle = {f"{ORACLE}{m}": m for m in metrics if f"{ORACLE}{m}" in runs}
    if oracle and runs[list(oracle)].notna().any(axis=None):
        table = category_table(runs[[*RUN_COLUMNS, *oracle]].rename(columns=oracle))
        means = table[(table["category"] == MEAN_ALL) & table["mean"].notna()]
        values = ", ".join(
            f"{metric_name(row['metric'])} {format_percent(row['mean'], row['std'])}"
            for row in means.to_dict("records")
            if row["metric"] in HEADINGS and HEADINGS[row["metric"]].priority == 0
        )
        remarks.append(f"Oracle, % (best epoch chosen on the test set, not a result): {values}")
    return remarks
