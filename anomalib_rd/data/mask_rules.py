"""Which pixels of a mask file are defect, for masks of any tool.

The rule ``auto`` distinguishes two kinds of masks by their pixels:

- **Classes**: 0/1, class or instance numbers, grey or coloured classes, at any depth. Everything
  but the background is defect, including the "void" border (255) of Pascal VOC. The background is
  black, or entry 0 of a palette without black.
- **Soft edges**: black and white with greys between them, from antialiased resizing or JPEG. Values
  above half of white are defect, after resizing: RD4AD's rule for MVTec AD.

Greys are edges if most of them are on a slope, with both a darker and a brighter neighbour.
Otherwise they are classes. So are uniform grey areas in a mask with soft edges; the limit is then
half of the darkest such area.

The brightest channel of a colour counts. Transparent pixels are background. If all visible pixels
are black, or none is, the opacity is the mask.

``nonzero`` and ``half`` (of white) apply one of the limits to every mask.
"""

from typing import Any

import numpy as np
from PIL import Image

from anomalib_rd.errors import UserError

AUTO, NONZERO, HALF = MASK_RULES = ("auto", "nonzero", "half")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
DEPTHS = (255, 1023, 4095, 16383, 65535)  # largest values of 8, 10, 12, 14 and 16 bit
CLASSES = 16  # a mask with all values below this has class numbers
# Largest change of black and white by JPEG, of 255: at the best quality, and at any quality.
BEST_JPEG_NOISE, JPEG_NOISE = 3, 16
# Greys are edges if this share of them is on a slope. Measured: at least 0.70 in 646 masks that
# were resized with antialiasing, 0.61 in JPEG below quality 100.
SLOPE_SHARE = 0.5


def check_mask_rule(rule: Any) -> None:
    """Raise UserError unless ``rule`` is one of `MASK_RULES`."""
    if rule not in MASK_RULES:
        raise UserError(f"data.mask_rule={rule}: choose one of {', '.join(MASK_RULES)}")


def mask_levels(mask: Image.Image, name: object, rule: str = AUTO) -> np.ndarray:
    """A mask of any mode as levels: uint8 (H, W), 0 background, 255 defect, edges in between.

    Pixels of at least 128 are defect. ``name`` is the mask's file, for errors.

    Raises:
        UserError: negative, infinite or undefined values.
    """
    values, indexed = _brightness(mask)
    # Floats and signed integers; the first comparison is also true of NaN.
    if values.dtype.kind in "if" and not (values.min() >= 0 and np.isfinite(values.max())):
        raise UserError(
            f"mask {name} has negative, infinite or undefined values, from {values.min():g} to"
            f" {values.max():g}; save it as 8 bit, with 0 for the background"
        )
    if indexed or rule == NONZERO or (rule == AUTO and _are_classes(values)):
        return (values > 0).astype(np.uint8) * 255
    white = _white(mask.mode, values.max())
    if rule == AUTO and (flat := _flat_greys(values, white)).size:
        white = flat.min()
    if white == 255:
        return np.minimum(values, 255).astype(np.uint8)
    return np.round(np.minimum(values, white) * (255 / white)).astype(np.uint8)


def _brightness(mask: Image.Image) -> tuple[np.ndarray, bool]:
    """A mask's values (H, W), and whether they are palette indices instead of brightness."""
    if mask.mode in DEEP_MODES:
        return np.asarray(mask), False
    if mask.mode == "1" or (mask.mode == "L" and not mask.has_transparency_data):
        return np.asarray(mask.convert("L")), False
    # RGBA, because palettes and all kinds of transparency convert to it.
    colours = mask if mask.has_transparency_data else mask.convert("RGB")
    pixels = np.asarray(colours.convert("RGBA"))
    # The brightest channel: a pure red defect is dark as a grey.
    bright, opacity = pixels[..., :3].max(axis=2), pixels[..., 3]
    if opacity.min() < opacity.max():
        visible = bright[opacity > 0] > 0
        if visible.all() or not visible.any():
            return opacity, False
        return np.round(bright * (opacity / 255)).astype(np.uint8), False  # on black
    if mask.mode == "P":
        indices = np.asarray(mask)
        # The palette's colours do not distinguish the background from the rest.
        if bright.min() > BEST_JPEG_NOISE or (
            bright.max() <= BEST_JPEG_NOISE and indices.max() > 0
        ):
            return indices, True
    return bright, False


def _white(mode: str, maximum: float) -> float:
    """The value of white in a mask of this mode with this largest value."""
    if mode not in DEEP_MODES:
        return 255
    if mode == "F" and maximum <= 1:
        return 1
    return next((depth for depth in DEPTHS if maximum <= depth), float(maximum))


def _are_classes(values: np.ndarray) -> bool:
    """Whether the values are class numbers and not grey levels with soft edges."""
    top = values.max()
    if values.dtype.kind != "f" and top < CLASSES:
        return True
    between = (values > 0) & (values < top)
    if not between.any():  # black and one value: no edges
        return True
    darkest, brightest = _neighbours(values)
    slope = between & (darkest < values) & (brightest > values)
    if slope.sum() >= SLOPE_SHARE * between.sum():
        return False
    # Black and white, changed by JPEG at its best quality, are neither slope nor class.
    noise = BEST_JPEG_NOISE if values.dtype == np.uint8 else 0
    grey = between & (values > noise) & (values < top - noise)
    return bool(grey.any() or (between & (darkest == brightest)).any())


def _flat_greys(values: np.ndarray, white: float) -> np.ndarray:
    """The greys that fill 3 x 3 pixels somewhere: classes in a mask with soft edges."""
    margin = JPEG_NOISE * white / 255
    grey = (values > margin) & (values < white - margin)
    if not grey.any():
        return values[:0, 0]
    darkest, brightest = _neighbours(values)
    return np.unique(values[grey & (darkest == brightest)])


def _neighbours(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum of each pixel and its eight neighbours."""
    from scipy import ndimage

    return ndimage.minimum_filter(values, 3), ndimage.maximum_filter(values, 3)


def covers_border(defect: np.ndarray) -> bool:
    """Whether all border pixels of a mask (H, W) are defect, as in an inverted mask.

    Never true in 729 masks of real defects.
    """
    return bool(all(edge.all() for edge in (defect[0], defect[-1], defect[:, 0], defect[:, -1])))


def has_lost_spots(levels: np.ndarray) -> bool:
    """Whether a grey spot has no pixel bright enough to count as defect."""
    grey = levels > JPEG_NOISE
    if not (grey & (levels < 128)).any():
        return False
    from scipy import ndimage

    spots, count = ndimage.label(grey, np.ones((3, 3)))
    return bool((ndimage.maximum(levels, spots, np.arange(1, count + 1)) < 128).any())
