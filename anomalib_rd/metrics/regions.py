"""Ground-truth regions: the connected defects that the PRO metrics weigh equally."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def region_areas(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Area of the 8-connected region of every defect pixel.

    Args:
        mask: (H, W), True where defective.

    Returns:
        (P,) integers for the P defect pixels in row-major order, the order of `scores[mask]`.
        The mean over the regions of the share of a region above a threshold is then the mean
        of `scores[mask] > threshold` weighted by the inverse area.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return np.zeros(0, dtype=np.int64)
    # Defects are small: labelling their bounding box is several times faster.
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(box, structure=_EIGHT_NEIGHBOURS)
    region = labels[box]
    return np.bincount(region)[region]


def region_weights(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Inverse region area of every defect pixel of masks (N, H, W), in the order of `maps[masks]`.

    Regions never reach from one image into the next.
    """
    areas = [region_areas(mask) for mask in masks]
    return 1.0 / np.concatenate([np.zeros(0, dtype=np.int64), *areas])
