"""Scores judged: the threshold to look at them by, and each defect type for itself."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata


@dataclass(frozen=True)
class DefectType:
    """A defect type against the good images.

    ``auroc`` is NaN where one of the two is missing; ``missed`` counts its images below the
    threshold.
    """

    name: str
    images: int
    auroc: float
    missed: int


def defect_types(scores: pd.DataFrame, threshold: float) -> list[DefectType]:
    """Each defect type's image AUROC against all good images, worst first.

    Args:
        scores: rows with ``defect, label, score``, as in scores.csv.
        threshold: of `best_threshold`; NaN misses none.
    """
    good = scores["score"][scores["label"] == 0].to_numpy(dtype=float)
    found = []
    for name, own in scores[scores["label"] == 1].groupby("defect"):
        values = own["score"].to_numpy(dtype=float)
        missed = int((values < threshold).sum())
        found.append(DefectType(str(name), len(values), auroc(good, values), missed))
    return sorted(found, key=lambda row: (not row.auroc <= 1, row.auroc, row.name))


def auroc(normal: np.ndarray, defective: np.ndarray) -> float:
    """Share of pairs (N,) x (M,) in the right order, a tie counting half; NaN if there is none.

    The Mann-Whitney statistic, by ranks (Hanley and McNeil, Radiology 143, 1982).
    """
    values = np.concatenate((normal, defective))
    if not len(normal) or not len(defective) or np.isnan(values).any():
        return np.nan
    above = rankdata(values)[len(normal) :].sum() - len(defective) * (len(defective) + 1) / 2
    return float(above / (len(normal) * len(defective)))


def wrong_pairs(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each image the share of the images of the other class that it is wrongly ordered with.

    A defect is wrongly ordered with the normal images that score higher, a normal image with the
    defects that score lower; a tie counts half. No threshold is needed, and the mean over either
    class is 1 - AUROC.

    Args:
        scores: (N,).
        labels: (N,) 0 or 1.

    Returns:
        (N,) in [0, 1]; NaN for scores that are NaN and where there is no other class.
    """
    found = np.full(len(scores), np.nan)
    for label in (0, 1):
        own, other = labels == label, scores[(labels != label) & ~np.isnan(scores)]
        if not len(other):
            continue
        ordered = np.sort(other)
        below, up_to = (np.searchsorted(ordered, scores[own], side) for side in ("left", "right"))
        above = len(other) - up_to
        wrong = (above if label else below) + (up_to - below) / 2
        found[own] = np.where(np.isnan(scores[own]), np.nan, wrong / len(other))
    return found


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The score with the best F1 if it and all above count as defects; NaN if undefined.

    Of equally good ones the highest. It is chosen on the test set: for looking at images, and
    for nothing that is reported.

    Args:
        scores: (N,).
        labels: (N,) 0 or 1.
    """
    defects = int(labels.sum())
    if not defects or defects == len(labels) or np.isnan(scores).any():
        return np.nan
    thresholds = np.unique(scores[labels == 1])[::-1]
    alarms = len(scores) - np.searchsorted(np.sort(scores), thresholds)
    hits = defects - np.searchsorted(np.sort(scores[labels == 1]), thresholds)
    return float(thresholds[np.argmax(2 * hits / (alarms + defects))])
