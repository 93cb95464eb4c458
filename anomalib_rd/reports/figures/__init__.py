"""Figures for a paper, as PDF and PNG, of the runs in folders: files only, no torch, no display."""

from anomalib_rd.reports.figures.write import FIGURES, write_figures

__all__ = ["FIGURES", "write_figures"]
