"""The page of an experiment: one HTML file that opens from disk and asks for nothing."""

from collections.abc import Sequence
from pathlib import Path

from anomalib_rd.reports.page.html import write_page
from anomalib_rd.reports.page.images import IMAGES
from anomalib_rd.reports.page.runs import collect
from anomalib_rd.results.published import load_published

__all__ = ["PAGE", "build_page"]

PAGE = "report.html"


def build_page(
    folders: Sequence[Path], out: Path, baseline: str | None = None, images: int = IMAGES
) -> Path:
    """Writes the page of all complete runs in or under the folders, atomically.

    Args:
        folders: runs, or folders that hold runs at any depth.
        out: the HTML file; its folder is made if it does not exist.
        baseline: the variant that the others are compared with; see `compare_variants`.
        images: test images shown of each category, at most; fewer where there are very many
            runs.

    Returns:
        ``out``.

    Raises:
        UserError: no complete run, no such baseline, or a file that cannot be read.
        OSError: the page cannot be written.
    """
    return write_page(collect(folders, baseline), load_published(), Path(out), images)
