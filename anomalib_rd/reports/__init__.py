"""Tables, Markdown and heatmaps from the files of runs; no torch."""

from anomalib_rd.reports.heatmaps import Example, choose_examples, heatmap_strip, write_heatmaps
from anomalib_rd.reports.sheet import heatmap_sheet

__all__ = [
    "Example",
    "choose_examples",
    "heatmap_sheet",
    "heatmap_strip",
    "write_heatmaps",
]
