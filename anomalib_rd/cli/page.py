"""The page that a run or a multirun leaves when it is over."""

import sys
from pathlib import Path

from anomalib_rd.cli.errors import explain


def leave_page(folder: Path) -> str:
    """Write ``report.html`` into a run's or a sweep's folder; returns a line that says where.

    What hinders it is one line: the results are on disk, and are not to be lost to a page.
    """
    from anomalib_rd.reports.dashboard import PAGE, build_page

    try:
        return f"Page: {build_page([folder], folder / PAGE)}"
    except Exception as error:
        line = explain(error) or f"{type(error).__name__}: {error}"
        print(f"anomalib-rd: no page: {line}", file=sys.stderr)
        return ""
