"""Where the object is, so that a defect hits it and not the background. Cheap and rough."""

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu


def foreground(image: np.ndarray) -> np.ndarray:
    """The object in an image uint8 (H, W, 3): bool (H, W).

    The largest region that differs from the border's colour by more than Otsu's threshold, its
    holes filled. It is believed if it covers 4 % to 95 % of the image, is more than all other
    such regions together, and hardly touches the border. Otherwise the image is a texture, or
    the object fills the frame: all of it is foreground.
    """
    height, width = image.shape[:2]
    unit = max(1, round(min(height, width) / 64))
    smooth = ndimage.gaussian_filter(image.astype(np.float64), (unit, unit, 0))
    edge = _border(height, width, unit)
    distance = np.linalg.norm(smooth - np.median(smooth[edge], axis=0), axis=2)
    everything = np.ones((height, width), bool)
    if np.ptp(distance) < 1:
        return everything
    differs = ndimage.binary_opening(distance > threshold_otsu(distance), iterations=2 * unit)
    regions, _ = ndimage.label(differs)
    pixels = np.bincount(regions.ravel())
    pixels[0] = 0  # the background
    found: np.ndarray = ndimage.binary_fill_holes(regions == pixels.argmax())
    clear = 2 * pixels.max() > pixels.sum() and found[edge].mean() < 0.1
    return found if clear and 0.04 < found.mean() < 0.95 else everything


def _border(height: int, width: int, thickness: int) -> np.ndarray:
    edge = np.ones((height, width), bool)
    edge[thickness:-thickness, thickness:-thickness] = False
    return edge
