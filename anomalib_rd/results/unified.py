"""A run of several categories (``data.unified=true``) and the records of its categories.

Beside the run's own files each category leaves, in ``<run>/per_category/<name>``, what a run of
that category alone would leave: record, scores, curves, gallery and heatmaps. Whoever looks for
runs is given these in the place of the run, so that a unified model stands in a table as one model
per category does, and no reader needs to know of it. They count once the run itself is complete.

In a category's record the data and all metrics are its own; the oracle is at the epoch with the
best mean, for one model has one best epoch; threshold, durations and images/s are the whole run's.
In the run's a metric that one category lacks is undefined.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PER_CATEGORY = "per_category"
LONGEST = 40  # characters of a name in a folder's or a run's


def category_folder(run_dir: Path | str, category: str) -> Path:
    """Where a unified run leaves what is of one of its categories."""
    return Path(run_dir) / PER_CATEGORY / category


def judged_folders(run_dir: Path, record: str) -> list[Path]:
    """The folders with the records of a complete run: its own, or those of its categories.

    Args:
        run_dir: the run's.
        record: the name of the file, ``result.json``.
    """
    found = sorted(path.parent for path in (run_dir / PER_CATEGORY).glob(f"*/{record}"))
    return found or [run_dir]


def whole_run(folder: Path | str) -> Path:
    """The run that a folder of `judged_folders` is of."""
    path = Path(folder)
    return path.parent.parent if path.parent.name == PER_CATEGORY else path


def set_name(category: Any) -> str:
    """What ``data.category`` is called in names of runs and folders.

    One category is called as it is, a set by all its names (``bottle+pill``), or, where these are
    long, by their number: the hash of the config in a sweep's folder tells such sets apart.
    """
    if isinstance(category, str) or not isinstance(category, Sequence):
        return str(category)
    names = "+".join(map(str, category))
    return names if len(names) <= LONGEST else f"unified-{len(category)}"
