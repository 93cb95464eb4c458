"""The pictures of a category, ready to be put into the page: photos once, maps for each run."""

from base64 import b64encode
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from skimage.measure import approximate_polygon, find_contours

from anomalib_rd.reports.dashboard.chosen import chosen_images
from anomalib_rd.reports.dashboard.runs import Group, Run
from anomalib_rd.results.gallery import Gallery, has_gallery

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
