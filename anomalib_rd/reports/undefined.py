"""Which metrics a table shows, and why the others are undefined: one line for each kind."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from anomalib_rd.results.table import metric_columns

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
