"""Published results next to our own: columns by category, and rows of means."""

from collections.abc import Collection, Mapping, Sequence

from anomalib_rd.reports.formatting import format_published, format_std
from anomalib_rd.reports.table_model import OTHER_PRO, Column, Row
from anomalib_rd.results.published import CATEGORIES, REPORTED, Published

# In a narrow terminal the last column is dropped first.
METHODS = (
    "rd4ad_wrn50",
    "rdpp_wrn50",
    "recontrast_wrn50",
    "patchcore_wrn50",
    "rdpp_maps",
    "anomalib_rd_wrn50",
)
_SHORT_NAMES = {"image_auroc": "image", "pixel_auroc": "pixel", "pro": "PRO"}
_PRO = {"aupro": "AUPRO", "pro_rd4ad": "per image, as RD4AD", None: "protocol unknown"}


def methods_with_columns(
    published: Mapping[str, Published], categories: Collection[str]
) -> list[Published]:
    """The methods that report some of these categories."""
    methods = [published[key] for key in METHODS if key in published]
    return [method for method in methods if method.categories.keys() & set(categories)]


def published_columns(methods: Sequence[Published], first_priority: int) -> list[Column]:
    """A column "image/pixel/PRO %" for each method."""
    columns = []
    for priority, method in enumerate(methods, start=first_priority):
        *first, last = (_SHORT_NAMES[metric] for metric in _metrics(method))
        heading = (method_name(method), "/".join([*first, ""]), f"{last} %")
        columns.append(Column(heading, priority, describe_source(method)))
    return columns


def published_cells(
    methods: Sequence[Published],
    categories: Collection[str],
    defined: Mapping[str, Collection[str]],
) -> list[str]:
    """One row's cells of `published_columns`; empty where a method reports nothing.

    Args:
        methods: with a column each.
        categories: of the row.
        defined: for a row of means: our metric -> the categories that our mean covers.
    """
    cells = []
    for method in methods:
        values = [_mean(method, metric, categories, defined) for metric in _metrics(method)]
        known = any(value is not None for value in values)
        cells.append("/".join(map(format_published, values)) if known else "")
    return cells


def published_mean_rows(
    published: Mapping[str, Published],
    categories: Collection[str],
    defined: Mapping[str, Collection[str]],
    metrics: Sequence[str],
    empty_cells: int,
) -> list[Row]:
    """Rows of published means over the same categories as ours, under our metrics.

    A method has no row if it does not report each of these categories, or only a mean over other
    categories.

    Args:
        published: of `load_published`.
        categories: of our means.
        defined: our metric -> the categories that our mean covers.
        metrics: of the columns.
        empty_cells: how many follow the metrics.
    """
    rows = []
    for method in published.values():
        values = {metric: _mean(method, metric, categories, defined) for metric in REPORTED}
        cells = [_mean_cell(method, values, metric, metrics) for metric in metrics]
        if any(cells):
            source = describe_source(method)
            rows.append(Row(method_name(method), (*cells, *[""] * empty_cells), source=source))
    return rows


def method_name(method: Published) -> str:
    """The name, with an asterisk if its numbers are not verified."""
    return method.name + ("" if method.verified else "*")


def describe_source(method: Published) -> str:
    """Protocol and reference on one line."""
    about = [] if method.verified else ["as reported, not verified"]
    about += [method.teacher] if method.teacher else []
    about.append(method.protocol)
    if "pro" in method.mean:
        about.append(f"PRO: {_PRO[method.pro]}")
    return f"{method_name(method)}: {'; '.join(about)}. {method.source}"


def _metrics(method: Published) -> list[str]:
    return [metric for metric in REPORTED if metric in method.mean]


def _mean(
    method: Published,
    metric: str,
    categories: Collection[str],
    defined: Mapping[str, Collection[str]],
) -> float | None:
    """The published value over the categories that our mean of this metric covers.

    Means over some of MVTec AD's categories are rounded to the usual decimal.
    """
    ours = (method.pro if method.pro in defined else "aupro") if metric == "pro" else metric
    covered = defined.get(ours or metric, categories)
    value = method.mean_over(covered, metric)
    return value if value is None or len(covered) in (1, CATEGORIES) else round(value, 1)


def _mean_cell(
    method: Published,
    values: Mapping[str, float | None],
    metric: str,
    metrics: Sequence[str],
) -> str:
    """The published mean under our metric; a PRO of another protocol is marked under AUPRO."""
    name = "pro" if metric in ("aupro", "pro_rd4ad") else metric
    value = values.get(name)
    if value is None:
        return ""
    std = method.std.get(name)
    text = format_published(value) + format_std(None if std is None else std / 100)
    if name != "pro" or metric == method.pro:
        return text
    # AUPRO's column takes a PRO that has no column of its own.
    return text + OTHER_PRO if metric == "aupro" and method.pro not in metrics else ""
