"""The record of one run, the table of many, and the numbers others report: files only, no torch."""

from anomalib_rd.results.files import sha256_file
from anomalib_rd.results.published import Published, compare, load_published
from anomalib_rd.results.record import (
    find_failures,
    find_runs,
    read_curves,
    read_failure,
    read_record,
    read_scores,
    write_failure,
    write_record,
)
from anomalib_rd.results.table import category_table, load_runs, runs_long, write_csv

__all__ = [
    "Published",
    "category_table",
    "compare",
    "find_failures",
    "find_runs",
    "load_published",
    "load_runs",
    "read_curves",
    "read_failure",
    "read_record",
    "read_scores",
    "runs_long",
    "sha256_file",
    "write_csv",
    "write_failure",
    "write_record",
]
