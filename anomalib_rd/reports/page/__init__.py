"""The report page: one HTML file with tables, plots and images that loads nothing else."""

from collections.abc import Sequence
from pathlib import Path

from anomalib_rd.reports.page.html import write_page
from anomalib_rd.reports.page.images import IMAGES
from anomalib_rd.reports.page.runs import load_page_data
from anomalib_rd.results.published import load_published

__all__ = ["PAGE", "build_page"]

PAGE = "report.html"


def build_page(
    folders: Sequence[Path], out: Path, baseline: str | None = None, images: int = IMAGES
) -> Path:
    """Write the report page of all complete runs in or under the folders, atomically.

    Args:
        folders: runs, or folders that contain runs at any depth.
        out: the HTML file; its folder is created.
        baseline: variant to compare with; see `compare_variants`.
        images: largest number of test images per category; fewer if there are very many runs.

    Returns:
        ``out``.

    Raises:
        UserError: no complete run, no such baseline, an unreadable file, or ``out`` cannot be
            written.
    """
    return write_page(load_page_data(folders, baseline), load_published(), Path(out), images)
