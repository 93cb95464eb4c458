"""All tables of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from anomalib_rd.errors import UserError
from anomalib_rd.reports.cells import overview_table, variant_table
from anomalib_rd.reports.compared import HEADLINE, comparison_table
from anomalib_rd.reports.layout import Document, Table
from anomalib_rd.results.published import DATA, Published
from anomalib_rd.results.record import read_failure
from anomalib_rd.results.table import category_table


def make_document(
    runs: pd.DataFrame,
    compared: pd.DataFrame,
    failures: Sequence[Path],
    published: Mapping[str, Published],
) -> Document:
    """For each data an overview and the differences to the baseline, if there are several
    variants, then one table for each variant.

    Args:
        runs: of `load_runs`.
        compared: of `compare_variants`.
        failures: folders with ``failure.json``.
        published: of `load_published`; shown beside the same categories of data ``mvtec`` only.
    """
    tables: list[Table] = []
    summary = category_table(runs)
    for data, part in runs.groupby("data", sort=False):
        of_data = summary[summary["data"] == data]
        beside = published if data == DATA else {}
        variants = list(dict.fromkeys(part["variant"]))
        if len(variants) > 1:
            tables.append(overview_table(part, of_data, beside))
            headline = (compared["data"] == data) & compared["metric"].isin(HEADLINE)
            differences = compared[headline]
            if len(differences):
                tables.append(comparison_table(differences))
        for variant in variants:
            chosen = part["variant"] == variant
            alone = len(variants) == 1
            tables.append(
                variant_table(part[chosen], of_data[of_data["variant"] == variant], beside, alone)
            )
    return Document(tables, [_failure_line(folder) for folder in failures])


def _failure_line(folder: Path) -> str:
    try:
        error = " ".join(str(read_failure(folder).get("error", "")).split())
    except UserError:
        error = "its failure.json cannot be read"
    return f"{folder}: {error or 'no message on record'}"
