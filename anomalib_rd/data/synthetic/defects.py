"""One defect with its exact mask: a maker's work, held against what can be seen of it."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from anomalib_rd.data.synthetic.blend import perlin_blend
from anomalib_rd.data.synthetic.cut_paste import cut_paste
from anomalib_rd.data.synthetic.foreground import foreground
from anomalib_rd.data.synthetic.scratch import scratch
from anomalib_rd.data.synthetic.texture_paste import texture_paste

Maker = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
KINDS: dict[str, Maker] = {
    "texture_paste": texture_paste,
    "cut_paste": cut_paste,
    "perlin_blend": perlin_blend,
    "scratch": scratch,
}
LEAST, MOST = 0.002, 0.1
"""The mask's share of the image; 80 % of the masks of MVTec AD's bottle, capsule, pill and
transistor lie between, median 1 %."""
VISIBLE = 12
"""Grey levels that the most changed channel must move by for a pixel to count as changed."""
CLEAR = 20
"""Grey levels that a defect moves its pixels by on average: below, one would not see it."""
ON_OBJECT = 0.6
"""Share of the mask that lies on the object."""
TRIES = 50


def add_defect(
    image: np.ndarray, rng: np.random.Generator, kind: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Give an image one defect, mostly on the object (see `foreground`).

    The maker draws again until its defect is visible, on the object, and of a size between
    `LEAST` and `MOST` of the image. An image on which it can't be gets a plain dark or light
    spot.

    Args:
        image: uint8 (H, W, 3), both sides at least 64 pixels; left as it is.
        rng: the only source of chance: the same state gives the same defect.
        kind: one of `KINDS`; None draws one.

    Returns:
        The image with the defect, and its mask bool (H, W): solid regions, never empty, outside
        of which no pixel differs from ``image``.
    """
    maker = KINDS[kind or str(rng.choice(list(KINDS)))]
    where = foreground(image)
    for _ in range(TRIES):
        changed = maker(image, where, rng)
        mask = visible_change(image, changed)
        if _acceptable(image, changed, mask, where):
            return np.where(mask[..., None], changed, image), mask
    return _spot(image, where)


def visible_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where one sees that two images (H, W, 3) differ: bool (H, W), without pinholes and specks."""
    speck = LEAST / 4 * before[..., 0].size
    moved = without_specks(difference(before, after) >= VISIBLE, speck)
    solid = ndimage.binary_closing(moved) | moved  # SciPy's closing loses the image's border
    return ~without_specks(~solid, speck)


def without_specks(mask: np.ndarray, pixels: float) -> np.ndarray:
    """A mask (H, W) without its 8-connected regions of fewer ``pixels``."""
    regions, _ = ndimage.label(mask, np.ones((3, 3)))
    kept: np.ndarray = mask & (np.bincount(regions.ravel()) >= pixels)[regions]
    return kept


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Grey levels between two images, of the channel that differs most: (H, W)."""
    levels: np.ndarray = abs(after.astype(np.int16) - before).max(axis=2)
    return levels


def _acceptable(
    image: np.ndarray, changed: np.ndarray, mask: np.ndarray, where: np.ndarray
) -> bool:
    return bool(
        LEAST <= mask.mean() <= MOST
        and difference(image, changed)[mask].mean() >= CLEAR
        and where[mask].mean() >= ON_OBJECT
    )


def _spot(image: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A disc of 1 % of the image in the middle of the object, black on light, white on dark."""
    height, width = where.shape
    inside = ndimage.distance_transform_edt(np.pad(where, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    rows, columns = np.ogrid[:height, :width]
    mask = np.hypot(rows - row, columns - column) <= np.sqrt(0.01 * height * width / np.pi)
    ink = np.where(image.astype(int).sum(axis=2, keepdims=True) < 382, 255, 0).astype(np.uint8)
    return np.where(mask[..., None], ink, image), mask
