"""Columns and rows of the numbers that others report, beside our own."""

from collections.abc import Collection, Mapping, Sequence

from anomalib_rd.reports.formatting import format_published
from anomalib_rd.reports.layout import OTHER_PRO, Column, Row
from anomalib_rd.results.published import CATEGORIES, REPORTED, Published

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


def methods_beside(published: Mapping[str, Published], names: Collection[str]) -> list[Published]:
    """The methods with a column of their own: those that report some of these categories."""
    found = [published[key] for key in BESIDE if key in published]
    return [method for method in found if not method.categories.keys().isdisjoint(names)]


def columns_beside(methods: Sequence[Published], first_priority: int) -> list[Column]:
    """One column for each method of `methods_beside`: "image/pixel/PRO %"."""
    return [
        Column((_name(method), *_heading(method)), priority, source(method))
        for priority, method in enumerate(methods, start=first_priority)
    ]


def cells_beside(
    methods: Sequence[Published], names: Collection[str], defined: Mapping[str, Collection[str]]
) -> list[str]:
    """The cells of `columns_beside` for one row; empty where nothing is reported.

    Args:
        methods: of `methods_beside`.
        names: the categories of the row.
        defined: of a mean, our metric -> the categories that it is the mean of.
    """
    cells = []
    for method in methods:
        values = [
            _mean_over(method, _averaged(method, metric, names, defined), metric)
            for metric in _metrics(method)
        ]
        known = any(value is not None for value in values)
        cells.append("/".join(map(format_published, values)) if known else "")
    return cells


def mean_rows(
    published: Mapping[str, Published],
    names: Collection[str],
    defined: Mapping[str, Collection[str]],
    metrics: Sequence[str],
    blanks: int,
    beside: bool,
) -> list[Row]:
    """Rows of reported means over the categories of ours, under the columns of our metrics.

    A method that does not report every one of these categories, or only the mean over all 15
    where ours are others, has no row.

    Args:
        published: of `load_published`.
        names: the categories of our means.
        defined: our metric -> the categories that it is the mean of, if they are fewer.
        metrics: the metrics of the columns.
        blanks: number of empty cells after the metrics.
        beside: whether the methods with columns of their own have them in this table; they
            then get no row.
    """
    rows = []
    for method in published.values():
        if beside and method.categories:
            continue
        values = {m: _mean_over(method, _averaged(method, m, names, defined), m) for m in REPORTED}
        cells = [_mean_cell(method, values, metric, metrics) for metric in metrics]
        if any(cells):
            rows.append(Row(_name(method), (*cells, *[""] * blanks), source=source(method)))
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


def _name(method: Published) -> str:
    return method.name + ("" if method.verified else "*")


def _metrics(method: Published) -> list[str]:
    return [metric for metric in REPORTED if metric in method.mean]


def _heading(method: Published) -> tuple[str, str]:
    *first, last = (_WORDS[metric] for metric in _metrics(method))
    return "/".join([*first, ""]), f"{last} %"


def _averaged(
    method: Published, metric: str, names: Collection[str], defined: Mapping[str, Collection[str]]
) -> Collection[str]:
    """The categories over which a reported metric is averaged: those of ours that it stands by."""
    ours = (method.pro if method.pro in defined else "aupro") if metric == "pro" else metric
    return defined.get(ours or metric, names)


def _mean_over(method: Published, names: Collection[str], metric: str) -> float | None:
    """The reported value of one category, or its mean over several to the usual decimal."""
    value = method.mean_over(names, metric)
    if value is None or len(names) in (1, CATEGORIES):
        return value
    return round(value, 1)


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
    text = format_published(value) + (f"±{std:.2f}" if std is not None else "")
    if name != "pro" or metric == method.pro:
        return text
    # AUPRO's column takes what no other column of the table takes.
    return text + OTHER_PRO if metric == "aupro" and method.pro not in metrics else ""
