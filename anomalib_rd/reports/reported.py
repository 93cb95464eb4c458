"""Columns and rows of the numbers that others report, beside our own."""

from collections.abc import Mapping, Sequence

from anomalib_rd.reports.layout import OTHER_PRO, Column, Row
from anomalib_rd.results.published import CATEGORIES, REPORTED, Published

PAPER = "fmg_rd"
# The last gives way first when the terminal is narrow.
BESIDE = (
    "rd4ad_wrn50",
    "rdpp_wrn50",
    "recontrast_wrn50",
    "patchcore_wrn50",
    "rdpp_maps",
    "anomalib_rd_wrn50",
)
_WORDS = {"image_auroc": "image", "pixel_auroc": "pixel", "pro": "PRO"}
_PRO = {"aupro": "AUPRO", "pro_rd4ad": "per image, as RD4AD", None: "protocol unknown"}


def columns_beside(published: Mapping[str, Published], first_priority: int) -> list[Column]:
    """One column for each method that reports every category: "image/pixel/PRO %"."""
    return [
        Column((_name(method), *_heading(method)), priority, source(method))
        for priority, method in enumerate(_beside(published), start=first_priority)
    ]


def cells_beside(published: Mapping[str, Published], names: set[str]) -> list[str]:
    """The cells of `columns_beside` for one row: reported means over its categories."""
    return [
        "/".join(percent(_mean_over(method, names, metric)) for metric in _metrics(method))
        for method in _beside(published)
    ]


def mean_rows(
    published: Mapping[str, Published],
    names: set[str],
    metrics: Sequence[str],
    blanks: int,
    beside: bool,
) -> list[Row]:
    """Rows of reported means, under the columns of our metrics.

    Methods that report every category are averaged over ours. Those that report the mean
    over all 15 only are shown if ours are all 15 too; the method's own paper always.

    Args:
        published: of `load_published`.
        names: the categories of our means.
        metrics: the metrics of the columns.
        blanks: number of empty cells after the metrics.
        beside: whether the methods with columns of their own have them in this table; they
            then get no row.
    """
    rows = []
    partial = len(names) != CATEGORIES
    for method in published.values():
        if method.categories:
            if beside:
                continue
            values = {m: _mean_over(method, names, m) for m in REPORTED}
        else:
            if partial and method.key != PAPER:
                continue
            values = {m: method.mean.get(m) for m in REPORTED}
        cells = [_mean_cell(method, values, metric, metrics) for metric in metrics]
        suffix = f" ({CATEGORIES})" if partial and not method.categories else ""
        line = source(method) + (f"; mean over all {CATEGORIES} categories" if suffix else "")
        rows.append(Row(_name(method) + suffix, (*cells, *[""] * blanks), source=line))
    return rows


def source(method: Published) -> str:
    """One line: how the numbers were made, and where they stand."""
    about = [method.protocol]
    if "pro" in method.mean:
        about.append(f"PRO: {_PRO[method.pro]}")
    if method.teacher:
        about.insert(0, method.teacher)
    if not method.verified:
        about.insert(0, "as reported, unverified")
    return f"{_name(method)}: {'; '.join(about)}. {method.source}"


def percent(value: float | None) -> str:
    """A reported value with the decimals it has, one at least, but 100 as it is."""
    if value is None:
        return "-"
    text = f"{value:.2f}"
    return "100" if text == "100.00" else text.removesuffix("0")


def _name(method: Published) -> str:
    return method.name + ("" if method.verified else "*")


def _metrics(method: Published) -> list[str]:
    return [metric for metric in REPORTED if metric in method.mean]


def _heading(method: Published) -> tuple[str, str]:
    *first, last = (_WORDS[metric] for metric in _metrics(method))
    return "/".join([*first, ""]), f"{last} %"


def _mean_over(method: Published, names: set[str], metric: str) -> float | None:
    """The reported value of one category, or its mean over several to the usual decimal."""
    value = method.mean_over(names, metric)
    if value is None or len(names) in (1, CATEGORIES):
        return value
    return round(value, 1)


def _beside(published: Mapping[str, Published]) -> list[Published]:
    return [published[key] for key in BESIDE if key in published]


def _mean_cell(
    method: Published,
    values: Mapping[str, float | None],
    metric: str,
    metrics: Sequence[str],
) -> str:
    """The reported mean under our metric; a PRO of another protocol is marked under AUPRO."""
    name = "pro" if metric in ("aupro", "pro_rd4ad") else metric
    value = values.get(name)
    if name not in REPORTED or value is None:
        return ""
    std = method.std.get(name)
    text = percent(value) + (f"±{std:.2f}" if std is not None else "")
    if name != "pro" or metric == method.pro:
        return text
    # AUPRO's column takes what no other column of the table takes.
    return text + OTHER_PRO if metric == "aupro" and method.pro not in metrics else ""
