"""The test images of a category for the page: photos once, anomaly maps of each run."""

from base64 import b64encode
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd
from skimage.measure import approximate_polygon, find_contours

from anomalib_rd.reports.heatmaps import choose_examples
from anomalib_rd.reports.page.runs import ImageSet
from anomalib_rd.results.gallery import Gallery, has_gallery

IMAGES = 20
MOST_MAPS = 4000  # of about 3 kB each: the page stays below 40 MB
MIN_IMAGES = 2
WORST_SHARE = 0.7
UNITS = 1000  # of a contour's coordinates along each side
_TOLERANCE = 0.4  # pixels by which a contour may be off


def images_per_category(image_sets: Sequence[ImageSet], images: int) -> int:
    """``images``, or fewer so that the maps of all runs stay small."""
    galleries = sum(has_gallery(run.folder) for each in image_sets for run in each.runs)
    return max(min(images, MOST_MAPS // max(galleries, 1)), min(images, MIN_IMAGES))


def encode_images(image_set: ImageSet, count: int) -> dict[str, Any]:
    """The images of a set by their position in it.

    Args:
        image_set: the images and their runs.
        count: largest number of images.

    Returns:
        ``size`` [H, W] of the first gallery, ``photos`` {position: JPEG in base64}, ``contours``
        {position: SVG path in a square of 1000 units; null without ground truth}, ``maps`` {run's
        key: {position: JPEG in base64}}. Empty if no run has a gallery.

    Raises:
        UserError: a gallery is damaged.
    """
    position = {path: str(index) for index, path in enumerate(image_set.images)}
    with ExitStack() as stack:
        galleries = {
            run.key: stack.enter_context(Gallery(run.folder))
            for run in image_set.runs
            if has_gallery(run.folder)
        }
        source: dict[str, Gallery] = {}
        for gallery in galleries.values():
            source = dict.fromkeys(gallery.paths, gallery) | source
        chosen = choose_images(image_set, source, count)
        if not chosen:
            return {}
        maps = {}
        for key, gallery in galleries.items():
            known = set(gallery.paths)
            own = [path for path in chosen if path in known]
            maps[key] = {position[path]: _to_text(gallery.map(path)) for path in own}
        return {
            "size": source[chosen[0]].size,
            "photos": {position[path]: _to_text(source[path].image(path)) for path in chosen},
            "contours": {position[path]: trace_outline(source[path].mask(path)) for path in chosen},
            "maps": maps,
        }


def choose_images(image_set: ImageSet, available: Collection[str], count: int) -> list[str]:
    """Paths of at most ``count`` available images: the worst of each run, then a spread over the
    defect types. They are the same for all runs."""
    paths = [path for path in image_set.images if path in available]
    if len(paths) <= count:
        return paths
    worst = _sort_worst_first(image_set, paths)[: round(WORST_SHARE * count)]
    rest = [path for path in paths if path not in set(worst)]
    table = pd.DataFrame({"path": rest, "defect": [image_set.images[path][0] for path in rest]})
    spread = [rest[row] for row in choose_examples(table, count - len(worst))]
    return [path for path in paths if path in {*worst, *spread}]


def _sort_worst_first(image_set: ImageSet, paths: list[str]) -> list[str]:
    """Each run's worst, the worst of them first, then each run's second worst, and so on."""
    each = np.array([[run.misranked.get(p, np.nan) for p in paths] for run in image_set.runs])
    each = np.where(np.isnan(each), -np.inf, each)
    ranks = np.argsort(np.argsort(-each, axis=1, kind="stable"), axis=1)
    order = np.lexsort((-each.max(axis=0), ranks.min(axis=0)))
    return [paths[index] for index in order]


def trace_outline(mask: np.ndarray | None) -> str | None:
    """The edges of a mask (H, W) as an SVG path in a square of ``UNITS``.

    Empty if the mask is, None if there is none.
    """
    if mask is None:
        return None
    # The border closes regions at the image's edge.
    padded = np.pad(mask.astype(float), 1)
    lines = []
    for edge in find_contours(padded, 0.5):
        vertices = approximate_polygon(edge, _TOLERANCE) - 0.5
        scaled = np.clip(np.rint(vertices / mask.shape * UNITS), 0, UNITS).astype(int)
        lines.append("M" + "L".join(f"{x} {y}" for y, x in scaled[:-1]) + "Z")
    return "".join(lines)


def _to_text(jpeg: bytes) -> str:
    return b64encode(jpeg).decode()
