"""Which pixels of a mask file are defect, whatever tool drew it.

By the rule ``auto`` a mask is one of two kinds, told apart by its pixels:

- **Classes**: 0/1, class or instance numbers, grey or coloured classes, at any depth. Whatever is
  not background is defect, the "void" border (255) of Pascal VOC too. Background is black; of a
  palette without black, its entry 0.
- **Soft edges**: black and white with greys between them, as resizing with antialiasing or JPEG
  make them. What is above half of white is defect, after resizing: RD4AD's rule for MVTec AD.

Greys are edges where most of them lie on a slope: with both a darker and a brighter neighbour.
Else they are classes, as are the areas of one grey in a mask with soft edges: then half of the
darkest such area is the limit.

Of colours the brightest channel counts. Transparent pixels are background; where the others are all
black, or all not black, opacity is the mask.

``nonzero`` and ``half`` (of white) apply one of the limits to every mask.
"""

from typing import Any

import numpy as np
from PIL import Image

from anomalib_rd.errors import UserError

AUTO, NONZERO, HALF = MASK_RULES = ("auto", "nonzero", "half")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# Largest values of 8, 10, 12, 14 and 16 bit.
DEPTHS = (255, 1023, 4095, 16383, 65535)
# A mask with all values below this holds class numbers.
LABELS = 16
# Of 8 bit: what JPEG changes of black and white, where it is stored at the best quality; and at
# any.
NOISE, MUCH_NOISE = 3, 16
# The share of the greys on a slope at which they count as edges. Measured: at least 0.70 in 646
# masks that were resized with antialiasing, 0.61 in JPEG below quality 100.
SLOPE = 0.5


def check_mask_rule(rule: Any) -> None:
    """Refuse an unknown rule.

    Raises:
        UserError: naming the rules.
    """
    if rule not in MASK_RULES:
        raise UserError(f"data.mask_rule={rule}: choose one of {', '.join(MASK_RULES)}")


def mask_levels(mask: Image.Image, name: object, rule: str = AUTO) -> np.ndarray:
    """A mask of any mode as levels: uint8 (H, W), 0 background, 255 defect, edges in between.

    From 128 on a pixel is defect.

    Args:
        mask: as decoded.
        name: of the file, for errors.
        rule: one of `MASK_RULES`.

    Raises:
        UserError: negative values, or values that are no numbers.
    """
    values, indexed = brightness(mask)
    if values.dtype.kind in "if":
        if not values.min() >= 0:  # also true of NaN
            raise UserError(
                f"mask {name} has negative values or values that are no numbers, down to"
                f" {values.min():g}; save it as 8 bit, with 0 for the background"
            )
        if np.isinf(values.max()):
            raise UserError(f"mask {name} has infinite values; save it as 8 bit")
    top = values.max()
    white = white_of(mask.mode, top)
    if indexed or rule == NONZERO or (rule == AUTO and are_classes(values)):
        return (values > 0).astype(np.uint8) * 255
    if rule == AUTO and (flat := flat_greys(values, white)).size:
        white = flat.min()
    if white == 255:
        return np.minimum(values, 255).astype(np.uint8)
    return np.round(np.minimum(values, white) * (255 / white)).astype(np.uint8)


def brightness(mask: Image.Image) -> tuple[np.ndarray, bool]:
    """A mask's values (H, W), and whether these are no brightness but numbers of a palette."""
    if mask.mode in DEEP:
        return np.asarray(mask), False
    if mask.mode == "1" or (mask.mode == "L" and not mask.has_transparency_data):
        return np.asarray(mask.convert("L")), False
    # Through RGBA, which palettes and all kinds of transparency can become.
    colours = mask if mask.has_transparency_data else mask.convert("RGB")
    pixels = np.asarray(colours.convert("RGBA"))
    # The brightest channel: a pure red defect is dark as a grey.
    bright, opacity = pixels[..., :3].max(axis=2), pixels[..., 3]
    if opacity.min() < opacity.max():
        return visible_brightness(bright, opacity), False
    if mask.mode == "P":
        indices = np.asarray(mask)
        # A palette whose colours do not tell the background from the rest.
        if bright.min() > NOISE or (bright.max() <= NOISE and indices.max() > 0):
            return indices, True
    return bright, False


def visible_brightness(bright: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Brightness (H, W) before black; the opacity where the visible colours say nothing."""
    visible = bright[opacity > 0] > 0
    if visible.all() or not visible.any():
        return opacity
    return np.round(bright * (opacity / 255)).astype(np.uint8)


def white_of(mode: str, top: float) -> float:
    """The value that means white in a mask of this mode, whose greatest value is ``top``."""
    if mode not in DEEP:
        return 255
    if mode == "F" and top <= 1:
        return 1
    return next((depth for depth in DEPTHS if top <= depth), float(top))


def are_classes(values: np.ndarray) -> bool:
    """Whether the values are numbers of classes and not grey levels with soft edges."""
    top = values.max()
    if values.dtype.kind != "f" and top < LABELS:
        return True
    between = (values > 0) & (values < top)
    if not between.any():  # black and one value: no edges
        return True
    darkest, brightest = neighbours(values)
    slope = between & (darkest < values) & (brightest > values)
    if slope.sum() >= SLOPE * between.sum():
        return False
    # What JPEG at its best quality leaves of black and white is neither slope nor class.
    noise = NOISE if values.dtype == np.uint8 else 0
    grey = between & (values > noise) & (values < top - noise)
    return bool(grey.any() or (between & (darkest == brightest)).any())


def flat_greys(values: np.ndarray, white: float) -> np.ndarray:
    """The greys that fill a square of 3 x 3 pixels somewhere: classes in a mask with soft edges."""
    margin = MUCH_NOISE * white / 255
    grey = (values > margin) & (values < white - margin)
    if not grey.any():
        return values[:0, 0]
    darkest, brightest = neighbours(values)
    return np.unique(values[grey & (darkest == brightest)])


def neighbours(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest value among each pixel and its eight neighbours."""
    from scipy import ndimage

    return ndimage.minimum_filter(values, 3), ndimage.maximum_filter(values, 3)


def covers_border(defect: np.ndarray) -> bool:
    """Whether all pixels at the border of a mask (H, W) are defect, as where it is inverted.

    None of 729 masks of real defects is so.
    """
    edges = (defect[0], defect[-1], defect[:, 0], defect[:, -1])
    return all(bool(edge.all()) for edge in edges)


def lost_spots(levels: np.ndarray) -> bool:
    """Whether a spot of greys is nowhere bright enough to count, so that all of it is lost."""
    grey = levels > MUCH_NOISE
    if not (grey & (levels < 128)).any():
        return False
    from scipy import ndimage

    spots, count = ndimage.label(grey, np.ones((3, 3)))
    if not count:
        return False
    return bool((ndimage.maximum(levels, spots, np.arange(1, count + 1)) < 128).any())
