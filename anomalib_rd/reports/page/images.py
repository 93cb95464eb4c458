"""Which test images of a category the page shows: the same for all of its runs."""

from base64 import b64encode
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd
from skimage.measure import approximate_polygon, find_contours

from anomalib_rd.reports.heatmaps import choose_examples
from anomalib_rd.reports.page.runs import Group, Run
from anomalib_rd.results.gallery import Gallery, has_gallery

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


IMAGES = 20
MOST_MAPS = 4000  # of some 3 kB each: the page stays below 40 MB
FEWEST = 2
UNITS = 1000  # of a contour's coordinates along each side
_TOLERANCE = 0.4  # pixels that a contour may be off


def images_each(groups: Sequence[Group], images: int) -> int:
    """How many images of each category: ``images``, or fewer so that the maps do not grow heavy."""
    drawn = sum(has_gallery(run.folder) for group in groups for run in group.runs)
    return max(min(images, MOST_MAPS // max(drawn, 1)), min(images, FEWEST))


def group_pictures(group: Group, count: int) -> dict[str, Any]:
    """The pictures of a group's images, by their position in the group.

    Args:
        group: the images and their runs.
        count: how many images at most.

    Returns:
        ``size`` [H, W] of the first gallery, ``photos`` {position: JPEG in base64}, ``contours``
        {position: SVG path in a square of 1000 units; null without ground truth}, ``maps`` {run's
        key: {position: JPEG in base64}}. Empty if no run left a gallery.

    Raises:
        UserError: a gallery is damaged.
    """
    position = {path: str(index) for index, path in enumerate(group.images)}
    with ExitStack() as stack:
        galleries: dict[Run, Gallery] = {
            run: stack.enter_context(Gallery(run.folder))
            for run in group.runs
            if has_gallery(run.folder)
        }
        source: dict[str, Gallery] = {}
        for gallery in galleries.values():
            for path in gallery.paths:
                source.setdefault(path, gallery)
        chosen = chosen_images(group, source, count)
        if not chosen:
            return {}
        known = {run: set(gallery.paths) for run, gallery in galleries.items()}
        return {
            "size": source[chosen[0]].size,
            "photos": {position[path]: _text(source[path].image(path)) for path in chosen},
            "contours": {position[path]: outline(source[path].mask(path)) for path in chosen},
            "maps": {
                run.key: {
                    position[path]: _text(gallery.map(path))
                    for path in chosen
                    if path in known[run]
                }
                for run, gallery in galleries.items()
            },
        }


def outline(mask: np.ndarray | None) -> str | None:
    """The edges of a mask (H, W) as an SVG path in a square of ``UNITS``; empty if all is false.

    None where there is no mask.
    """
    if mask is None:
        return None
    # With a border of its own, a region at the image's edge is closed too.
    closed = np.pad(mask.astype(float), 1)
    lines = []
    for edge in find_contours(closed, 0.5):
        vertices = approximate_polygon(edge, _TOLERANCE) - 0.5
        scaled = np.clip(np.rint(vertices / mask.shape * UNITS), 0, UNITS).astype(int)
        lines.append("M" + "L".join(f"{x} {y}" for y, x in scaled[:-1]) + "Z")
    return "".join(lines)


def _text(picture: bytes) -> str:
    return b64encode(picture).decode()
