"""Curves of a run, with as few points as a small plot needs."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

POINTS = 160
DIGITS = 4
CURVES = {
    "image_roc": ("image_roc_fpr", "image_roc_tpr"),
    "image_pr": ("image_pr_recall", "image_pr_precision"),
    "pixel_roc": ("pixel_roc_fpr", "pixel_roc_tpr"),
    "pixel_pr": ("pixel_pr_recall", "pixel_pr_precision"),
    "pro": ("pro_fpr", "pro"),
}
_CSV, _LOSS = "csv/metrics.csv", "train/loss"  # as Lightning's CSV logger writes them


def drawn_curves(arrays: Mapping[str, np.ndarray]) -> dict[str, list[list[float]]]:
    """``{name: [x, y]}`` of the curves in ``curves.npz`` that are there and defined."""
    found = {}
    for name, (x, y) in CURVES.items():
        if len(arrays.get(x, ())) and len(arrays.get(y, ())) == len(arrays[x]):
            found[name] = thinned(arrays[x], arrays[y])
    return found


def thinned(x: np.ndarray, y: np.ndarray, most: int = POINTS) -> list[list[float]]:
    """At most ``most`` of a curve's points (K,), evenly along it, with both ends."""
    if len(x) > most:
        along = np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])).cumsum()
        keep = np.searchsorted(along, np.linspace(0, along[-1], most - 1))
        keep = np.unique(np.append(np.minimum(keep, len(x) - 1), len(x) - 1))
        x, y = x[keep], y[keep]
    return [x.round(DIGITS).tolist(), y.round(DIGITS).tolist()]


def training_loss(record: Mapping[str, Any], folder: Path) -> list[float | None]:
    """Mean training loss of each epoch: ``loss_curve`` of the record, else the CSV logger's.

    Empty where neither is on disk.
    """
    values = record.get("loss_curve") or _logged(folder / _CSV)
    return [v if v is not None and math.isfinite(v) else None for v in values]


def _logged(path: Path) -> list[float]:
    try:
        with path.open(newline="") as file:
            return [float(row[_LOSS]) for row in csv.DictReader(file) if row.get(_LOSS)]
    except (OSError, ValueError):
        return []
