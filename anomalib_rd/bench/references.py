"""Other ways to the pixel metrics, to measure against: plain ones and those of other packages."""

from importlib import import_module

import numpy as np
import torch
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


def by_argsort(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """AUPRO alone, exact."""
    return {"aupro": aupro_by_argsort(maps, masks)}


def by_sklearn(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Pixel AUROC alone, exact."""
    from sklearn.metrics import roc_auc_score

    return {"pixel_auroc": float(roc_auc_score(masks.ravel(), maps.ravel()))}


def by_adeval(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """AUROC, AP and AUPRO together from histograms of 1000 bins (PyPI adeval), approximate."""
    if not hasattr(np, "trapz"):  # adeval 1.1 calls it by the name that NumPy 2.4 removed
        np.trapz = np.trapezoid  # type: ignore[attr-defined]
    evaluator = import_module("adeval").EvalAccumulator(
        float(maps.min()), float(maps.max()), nstrips=1000
    )
    evaluator.add_anomap_batch(maps, masks.view(np.uint8))
    with np.errstate(invalid="ignore"):  # there are no image scores
        found = evaluator.summary()
    names = {"pixel_auroc": "p_auroc", "pixel_ap": "p_aupr", "aupro": "p_aupro"}
    return {ours: float(found[theirs]) for ours, theirs in names.items()}


def by_anomalib(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """AUPRO alone by one argsort, summed in float32 (PyPI anomalib)."""
    metric = import_module("anomalib.metrics.aupro")._AUPRO()  # AUPRO takes whole batch objects
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks).int())
    return {"aupro": float(metric.compute())}
