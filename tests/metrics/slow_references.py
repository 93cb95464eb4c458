"""The definitions written out literally, slow and independent of the package."""

import numpy as np
from scipy import ndimage
from skimage import measure


def distinct_thresholds(scores):
    return sorted(set(scores.ravel().tolist()), reverse=True)


def f1max(scores, labels):
    best = 0.0
    for threshold in distinct_thresholds(scores):
        predicted = scores >= threshold
        true_positives = (predicted & labels).sum()
        best = max(best, 2 * true_positives / (predicted.sum() + labels.sum()))
    return best


def regions(masks):
    """One boolean array of the shape of masks for each 8-connected region of each image."""
    found = []
    for image, mask in enumerate(masks):
        labels = measure.label(mask.astype(np.int64), connectivity=2)
        for number in range(1, labels.max() + 1):
            region = np.zeros_like(masks)
            region[image] = labels == number
            found.append(region)
    return found


def aupro_all_thresholds(maps, masks, limit):
    """Every threshold, every region."""
    found = regions(masks)
    fprs, pros = [0.0], [0.0]
    for threshold in distinct_thresholds(maps):
        predicted = maps >= threshold
        fprs.append(predicted[~masks].mean())
        pros.append(np.mean([predicted[region].mean() for region in found]))
    return area(np.array(fprs), np.array(pros), limit)


def area(x, y, limit):
    """Segment by segment, the one that crosses the limit cut there."""
    total = 0.0
    for x0, x1, y0, y1 in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        total += (x1 - x0) * (y0 + y1) / 2
    return total / limit


def aupro_mvtec(maps, masks, limit):
    """MVTec's evaluation code: one argsort of all pixels, cumulative sums, merged ties."""
    false_positive = np.zeros(maps.shape, dtype=np.uint32)
    overlap = np.zeros(maps.shape, dtype=np.float64)
    region_count = 0
    for image, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3), dtype=int))
        region_count += count
        false_positive[image][labels == 0] = 1
        for number in range(1, count + 1):
            overlap[image][labels == number] = 1.0 / (labels == number).sum()
    order = np.argsort(maps.ravel())[::-1]
    scores = maps.ravel()[order]
    fprs = np.cumsum(false_positive.ravel()[order], dtype=np.int64) / false_positive.sum()
    pros = np.cumsum(overlap.ravel()[order]) / region_count
    last_of_tie = np.append(scores[1:] != scores[:-1], True)
    x = np.concatenate(([0.0], fprs[last_of_tie], [1.0]))
    y = np.concatenate(([0.0], pros[last_of_tie], [1.0]))
    inside = x <= limit
    last = inside.sum() - 1
    total = np.trapezoid(y[inside], x[inside])
    if x[last] < limit:
        slope = (y[last + 1] - y[last]) / (x[last + 1] - x[last])
        at_limit = y[last] + slope * (limit - x[last])
        total += (at_limit + y[last]) / 2 * (limit - x[last])
    return total / limit


def pro_rd4ad(maps, masks):
    """RD4AD's loop, image by image; None where its code cannot go on."""
    areas = []
    for scores, mask in zip(maps.astype(np.float64), masks, strict=True):
        if not mask.any():
            continue
        low, high = scores.min(), scores.max()
        points = []
        for threshold in np.arange(low, high, (high - low) / 200):
            predicted = scores > threshold
            overlaps = [
                predicted[tuple(region.coords.T)].sum() / region.area
                for region in measure.regionprops(measure.label(mask.astype(np.int64)))
            ]
            fpr = np.logical_and(~mask, predicted).sum() / (~mask).sum()
            points.append((fpr, np.mean(overlaps)))
        points = np.array([point for point in points if point[0] < 0.3])
        if len(points) < 2 or points[:, 0].max() == 0:
            return None
        x = points[:, 0] / points[:, 0].max()
        areas.append(abs(np.trapezoid(points[:, 1], x)))
    return float(np.mean(areas))
