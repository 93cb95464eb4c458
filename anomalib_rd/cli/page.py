"""The page that a run or a multirun leaves when it is over."""

import sys
from pathlib import Path

from anomalib_rd.cli.mistakes import explain
from anomalib_rd.errors import UserError


def leave_page(folder: Path) -> str:
    """Write ``report.html`` into a run's or a sweep's folder; returns a line that says where.

    What hinders it is one line: the results are on disk, and are not to be lost to a page.
    """
    from anomalib_rd.reports.dashboard import PAGE, build_page

    try:
        return f"Page: {build_page([folder], folder / PAGE)}"
    except (UserError, OSError) as error:
        print(f"anomalib-rd: no page: {explain(error) or error}", file=sys.stderr)
        return ""
