"""What a study leaves on record: results.csv, summary.md and figure.png of a sweep; no torch."""

from anomalib_rd.reports.study.write import FIGURE, RESULTS, SUMMARY, record_study

__all__ = ["FIGURE", "RESULTS", "SUMMARY", "record_study"]
