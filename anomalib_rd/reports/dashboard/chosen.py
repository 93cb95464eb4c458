"""Which test images of a category the page shows: the same for all of its runs."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from anomalib_rd.reports.dashboard.runs import Group
from anomalib_rd.reports.heatmaps import choose_examples

WORST_SHARE = 0.7


def chosen_images(group: Group, shown: Collection[str], count: int) -> list[str]:
    """Paths of at most ``count`` images: the worst of any run, then a spread over the types.

    Args:
        group: the images and the runs that judged them.
        shown: the paths that some gallery has; others are not chosen.
        count: how many at most.
    """
    paths = [path for path in group.images if path in shown]
    if len(paths) <= count:
        return paths
    first = _worst_first(group, paths)[: round(WORST_SHARE * count)]
    rest = [path for path in paths if path not in set(first)]
    table = pd.DataFrame({"path": rest, "defect": [group.images[path][0] for path in rest]})
    spread = [rest[row] for row in choose_examples(table, count - len(first))]
    return [path for path in paths if path in {*first, *spread}]


def _worst_first(group: Group, paths: list[str]) -> list[str]:
    """Each run's worst, by how bad it is, then each run's second worst, and so on."""
    each = np.array([[run.badness.get(path, np.nan) for path in paths] for run in group.runs])
    each = np.where(np.isnan(each), -np.inf, each)
    places = np.argsort(np.argsort(-each, axis=1, kind="stable"), axis=1)
    order = np.lexsort((-each.max(axis=0), places.min(axis=0)))
    return [paths[index] for index in order]
