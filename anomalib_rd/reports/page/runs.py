"""Curves of a run, with as few points as a small plot needs."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from anomalib_rd.reports.page.sweeps import Sweep, find_sweeps
from anomalib_rd.reports.tables import records
from anomalib_rd.results.record import CURVES as CURVES_FILE
from anomalib_rd.results.record import RESULT, read_curves, read_record, read_scores
from anomalib_rd.results.statistics import choose_baselines, compare_variants
from anomalib_rd.results.table import category_table, load_runs, metric_columns
from anomalib_rd.results.threshold import describe_threshold

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


@dataclass(eq=False)
class Group:
    """Test images that are the same for several runs: one data set's category.

    Attributes:
        images: path relative to the data's root -> (defect, label), of all its runs.
        runs: those that judged them.
    """

    data: str
    category: str
    images: dict[str, tuple[str, int]] = field(default_factory=dict)
    runs: list["Run"] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Run:
    """One complete run.

    Attributes:
        key: names it in links, the same as long as its folder, and the two it is in, are called so.
        row: of `load_runs`.
        scores: path -> image score.
        threshold: of the best image F1 on the test set; NaN if undefined.
        badness: path -> share of the images of the other class that it is wrongly ordered with
            (see `wrong_pairs`); among equals the one nearer to the other class is slightly worse.
    """

    key: str
    folder: Path
    group: Group
    row: dict[str, Any]
    record: dict[str, Any]
    scores: dict[str, float]
    threshold: float
    badness: dict[str, float]
    defects: list[dict[str, Any]]

    def payload(self, metrics: Sequence[str]) -> dict[str, Any]:
        """The run for the page's script; scores in the order of the group's images."""
        record = self.record
        return {
            "key": self.key,
            "folder": self.row["run"],
            "data": self.group.data,
            "category": self.group.category,
            "variant": self.row["variant"],
            "seed": self.row["seed"],
            "metrics": {name: self.row[name] for name in metrics},
            "undefined": self.row["undefined"],
            "epochs": self.row["epochs"],
            "headline": self.row["headline"],
            "size": self.row["image_size"],
            "duration": record.get("duration_s") or {},
            "speed": record.get("images_per_s") or {},
            "threshold": _short(self.threshold),
            "verdicts": describe_threshold(record, self.folder / RESULT),
            "badness": [self.badness.get(path) for path in self.group.images],
            "scores": [_short(self.scores.get(path)) for path in self.group.images],
            "defects": self.defects,
            "curves": self._curves(),
            "loss": training_loss(record, self.folder),
            "test_curve": record["test_curve"],
            "oracle": record["oracle"],
            "validation": record.get("validation") or {},
            "chosen_on_test": bool(record["protocol"].get("chosen_on_test")),
            "config": record["config"],
            "provenance": record.get("provenance") or {},
            "checkpoint": record.get("checkpoint"),
        }

    def _curves(self) -> dict[str, list[list[float]]]:
        if not (self.folder / CURVES_FILE).is_file():
            return {}
        return drawn_curves(read_curves(self.folder))


def read_runs(table: pd.DataFrame) -> tuple[list[Run], list[Group]]:
    """The runs of `load_runs`, in its order, and their groups.

    Raises:
        UserError: a record or its scores cannot be read.
    """
    # The same category of another data root has other images under the same names.
    groups: dict[tuple[Any, ...], Group] = {}
    runs: list[Run] = []
    metrics = metric_columns(table)
    for row in records(table):
        place = (row["data"], row["category"], row["fingerprint"])
        group = groups.setdefault(place, Group(row["data"], row["category"]))
        run = _read(row, group, metrics, {run.key for run in runs})
        group.runs.append(run)
        runs.append(run)
    return runs, list(groups.values())


def _read(row: dict[str, Any], group: Group, metrics: Sequence[str], taken: set[str]) -> Run:
    folder = Path(row["run"])
    scores = read_scores(folder)
    for image in scores.itertuples(index=False):
        group.images.setdefault(str(image.path), (str(image.defect), int(str(image.label))))
    values, labels = scores["score"].to_numpy(dtype=float), scores["label"].to_numpy(dtype=int)
    threshold = best_threshold(values, labels)
    by_type = [vars(found) for found in defect_types(scores, threshold)]
    return Run(
        key=_key(folder, taken),
        folder=folder,
        group=group,
        row=row | {name: float(row[name]) for name in metrics},
        record=read_record(folder),
        scores=dict(zip(scores["path"], values.tolist(), strict=True)),
        threshold=threshold,
        badness=dict(zip(scores["path"], _badness(values, labels).tolist(), strict=True)),
        defects=by_type,
    )


def _badness(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) of `wrong_pairs`, ties broken by how near the score is to those of the other class."""
    if np.isnan(scores).all():
        return scores
    standard = (scores - np.nanmean(scores)) / (np.nanstd(scores) or 1.0)
    nearness = 1e-7 * np.tanh(np.where(labels == 1, -standard, standard) / 4)
    return np.round(wrong_pairs(scores, labels) + nearness, 10)


def _key(folder: Path, taken: set[str]) -> str:
    """The same wherever the sweep is moved to; of the whole path where that is not enough."""
    parts = folder.resolve().parts
    keys = (sha256("/".join(p).encode(errors="replace")).hexdigest() for p in (parts[-3:], parts))
    return next(key[:10] for key in keys if key[:10] not in taken)


def _short(score: float | None) -> float | None:
    """Nine digits tell float32 scores apart, and the page stays small."""
    return None if score is None else float(f"{score:.9g}")


@dataclass(frozen=True)
class Collected:
    """The tables of `load_runs`, `category_table` and `compare_variants`, and what they lack."""

    runs: pd.DataFrame
    summary: pd.DataFrame
    compared: pd.DataFrame
    baselines: dict[str, str]
    read: list[Run]
    groups: list[Group]
    sweeps: list[Sweep]


def collect(folders: Sequence[Path], baseline: str | None) -> Collected:
    """Read the folders; errors as for `build_page`."""
    runs = load_runs(folders)
    baselines = choose_baselines(runs, baseline)
    against = runs["data"].map(baselines) == runs["variant"]
    # The baseline comes first among the variants of its data.
    runs = pd.concat([runs[against], runs[~against]], ignore_index=True)
    read, groups = read_runs(runs)
    return Collected(
        runs=runs,
        summary=category_table(runs),
        compared=compare_variants(runs, baseline),
        baselines=baselines,
        read=read,
        groups=groups,
        sweeps=find_sweeps(folders),
    )
