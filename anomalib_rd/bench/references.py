"""Plain implementations to measure against, written from the definitions."""

import numpy as np
from scipy.ndimage import label


def aupro_by_argsort(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """AUPRO as MVTec's evaluation code goes about it: one argsort of all pixels.

    Args:
        maps: (N, H, W) float.
        masks: (N, H, W) bool.
        limit: false positive rate up to which the area is taken.
    """
    alarm = np.zeros(maps.shape, dtype=np.float64)
    overlap = np.zeros(maps.shape, dtype=np.float64)
    regions = 0
    for image, mask in enumerate(masks):
        labels, count = label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        overlap[image] = np.where(labels > 0, 1 / sizes[labels], 0)
        regions += count
    alarm[~masks] = 1 / (~masks).sum()
    order = np.argsort(-maps.ravel(), kind="quicksort")
    values = maps.ravel()[order]
    last = np.append(values[1:] != values[:-1], True)
    fpr = np.append(0, np.cumsum(alarm.ravel()[order])[last])
    pro = np.append(0, np.cumsum(overlap.ravel()[order])[last] / regions)
    inside = fpr <= limit
    x, y = np.append(fpr[inside], limit), np.append(pro[inside], np.interp(limit, fpr, pro))
    return float(np.trapezoid(y, x) / limit)
