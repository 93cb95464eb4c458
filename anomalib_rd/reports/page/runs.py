"""The runs of the report page, with their scores, curves and test images."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.metrics.ranking import best_f1_threshold, rank_scores
from anomalib_rd.reports.formatting import format_duration, format_rate
from anomalib_rd.reports.page.sweeps import Sweep, find_sweeps
from anomalib_rd.results.record import CURVES as CURVES_FILE
from anomalib_rd.results.record import RESULT, read_curves, read_record, read_scores
from anomalib_rd.results.runs_table import category_table, load_runs, metric_columns
from anomalib_rd.results.statistics import choose_baselines, compare_variants
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
_CSV, _LOSS = "csv/metrics.csv", "train/loss"  # of Lightning's CSVLogger


@dataclass(eq=False)
class ImageSet:
    """The test images of a category, which several runs share.

    Attributes:
        images: path relative to the data's root -> (defect, label).
        runs: those that were evaluated on them.
    """

    data: str
    category: str
    images: dict[str, tuple[str, int]] = field(default_factory=dict)
    runs: list["Run"] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Run:
    """A complete run.

    Attributes:
        key: its name in links; depends only on the names of its folder and of the two above.
        row: of `load_runs`.
        scores: path -> image score.
        threshold: maximises the image F1 on the test set; NaN if undefined.
        misranked: path -> `misranked_share`, ties broken by the score.
        defects: of `defect_types`.
    """

    key: str
    folder: Path
    image_set: ImageSet
    row: dict[str, Any]
    record: dict[str, Any]
    scores: dict[str, float]
    threshold: float
    misranked: dict[str, float]
    defects: list[dict[str, Any]]

    def payload(self, metrics: Sequence[str]) -> dict[str, Any]:
        """The run for page.js; scores in the order of the image set."""
        record, row, images = self.record, self.row, self.image_set.images
        seconds, rates = record.get("duration_s") or {}, record.get("images_per_s") or {}
        has_curves = (self.folder / CURVES_FILE).is_file()
        return {
            "key": self.key,
            "folder": row["run"],
            "data": self.image_set.data,
            "category": self.image_set.category,
            "variant": row["variant"],
            "seed": row["seed"],
            "metrics": {name: row[name] for name in metrics},
            "undefined": row["undefined"],
            "epochs": row["epochs"],
            "headline": row["headline"],
            "size": row["image_size"],
            "timing": {
                "training time": format_duration(seconds.get("train")),
                "test time": format_duration(seconds.get("test")),
                "training images/s": format_rate(rates.get("train")),
                "test images/s": format_rate(rates.get("test")),
            },
            "threshold": _shorten(self.threshold),
            "predict_threshold": describe_threshold(record, self.folder / RESULT),
            "misranked": [self.misranked.get(path) for path in images],
            "scores": [_shorten(self.scores.get(path)) for path in images],
            "defects": self.defects,
            "curves": thin_curves(read_curves(self.folder)) if has_curves else {},
            "loss": training_loss(record, self.folder),
            "test_curve": record["test_curve"],
            "oracle": record["oracle"],
            "validation": record.get("validation") or {},
            "chosen_on_test": bool(record["protocol"].get("chosen_on_test")),
            "config": record["config"],
            "provenance": {
                **(record.get("provenance") or {}),
                "checkpoint": record.get("checkpoint"),
                "duration_s": seconds,
                "images_per_s": rates,
            },
        }


@dataclass(frozen=True)
class PageData:
    """The tables of `load_runs`, `category_table` and `compare_variants`, and what they omit."""

    table: pd.DataFrame
    summary: pd.DataFrame
    compared: pd.DataFrame
    baselines: dict[str, str]
    runs: list[Run]
    image_sets: list[ImageSet]
    sweeps: list[Sweep]


def load_page_data(folders: Sequence[Path], baseline: str | None) -> PageData:
    """Read the runs; errors as for `build_page`."""
    table = load_runs(folders)
    baselines = choose_baselines(table, baseline)
    is_baseline = table["data"].map(baselines) == table["variant"]
    table = pd.concat([table[is_baseline], table[~is_baseline]], ignore_index=True)
    runs, image_sets = read_runs(table)
    return PageData(
        table=table,
        summary=category_table(table),
        compared=compare_variants(table, baseline),
        baselines=baselines,
        runs=runs,
        image_sets=image_sets,
        sweeps=find_sweeps(folders),
    )


def read_runs(table: pd.DataFrame) -> tuple[list[Run], list[ImageSet]]:
    """The runs of `load_runs`, in its order, and their image sets.

    Raises:
        UserError: a record or its scores cannot be read.
    """
    # Another data root has other images under the same names.
    image_sets: dict[tuple[Any, ...], ImageSet] = {}
    runs: list[Run] = []
    metrics = metric_columns(table)
    for row in table.to_dict("records"):
        images = (row["data"], row["category"], row["fingerprint"])
        image_set = image_sets.setdefault(images, ImageSet(row["data"], row["category"]))
        values = {str(name): value for name, value in row.items()}
        values |= {name: float(row[name]) for name in metrics}
        run = _read_run(values, image_set, {run.key for run in runs})
        image_set.runs.append(run)
        runs.append(run)
    return runs, list(image_sets.values())


def _read_run(row: dict[str, Any], image_set: ImageSet, taken: set[str]) -> Run:
    folder = Path(row["run"])
    table = read_scores(folder)
    for path, defect, label in zip(table["path"], table["defect"], table["label"], strict=True):
        image_set.images.setdefault(str(path), (str(defect), int(label)))
    scores, labels = table["score"].to_numpy(dtype=float), table["label"].to_numpy(dtype=int)
    threshold = best_threshold(scores, labels)
    return Run(
        key=_make_key(folder, taken),
        folder=folder,
        image_set=image_set,
        row=row,
        record=read_record(folder),
        scores=dict(zip(table["path"], scores.tolist(), strict=True)),
        threshold=threshold,
        misranked=dict(zip(table["path"], _order_by_rank(scores, labels).tolist(), strict=True)),
        defects=defect_types(table, threshold),
    )


def _make_key(folder: Path, taken: set[str]) -> str:
    """A hash that stays the same when the sweep is moved; of the full path if that is taken."""
    parts = folder.resolve().parts
    keys = (sha256("/".join(p).encode(errors="replace")).hexdigest() for p in (parts[-3:], parts))
    return next(key[:10] for key in keys if key[:10] not in taken)


def _shorten(score: float | None) -> float | None:
    """Nine digits distinguish float32 scores."""
    return None if score is None else float(f"{score:.9g}")


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Threshold that maximises F1 on the test images, for browsing them; NaN if undefined."""
    ranking = None if np.isnan(scores).any() else rank_scores(scores, labels == 1)
    return best_f1_threshold(ranking) if ranking and ranking.defined else np.nan


def defect_types(scores: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    """Each defect type against all good images, worst first.

    Args:
        scores: rows with ``defect, label, score``, as in scores.csv.
        threshold: of `best_threshold`.

    Returns:
        ``name, images, auroc`` (NaN if undefined) and ``missed``, the images below the threshold.
    """
    good = scores["score"][scores["label"] == 0].to_numpy(dtype=float)
    types = []
    for name, own in scores[scores["label"] == 1].groupby("defect"):
        values = own["score"].to_numpy(dtype=float)
        both = np.concatenate((good, values))
        ranking = rank_scores(both, np.arange(len(both)) >= len(good))
        auroc = np.nan if np.isnan(both).any() else ranking.metrics()["image_auroc"]
        missed = int((values < threshold).sum())
        types.append({"name": str(name), "images": len(values), "auroc": auroc, "missed": missed})
    return sorted(types, key=lambda row: (np.nan_to_num(row["auroc"], nan=np.inf), row["name"]))


def misranked_share(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each image, the share of images of the other class that rank on the wrong side of it.

    That is, normal images with higher scores than a defect, and defects with lower scores than a
    normal image; a tie counts half. It needs no threshold; its mean over a class is 1 - AUROC.

    Args:
        scores: (N,).
        labels: (N,) 0 or 1.

    Returns:
        (N,) in [0, 1]; NaN for NaN scores and where the other class is missing.
    """
    shares = np.full(len(scores), np.nan)
    for label in (0, 1):
        own = (labels == label) & ~np.isnan(scores)
        others = np.sort(scores[(labels != label) & ~np.isnan(scores)])
        if len(others):
            below = np.searchsorted(others, scores[own], "left")
            up_to = np.searchsorted(others, scores[own], "right")
            wrong = len(others) - up_to if label else below
            shares[own] = (wrong + (up_to - below) / 2) / len(others)
    return shares


def _order_by_rank(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) of `misranked_share`; among equals, scores nearer to the other class are worse."""
    if np.isnan(scores).all():
        return scores
    standard = (scores - np.nanmean(scores)) / (np.nanstd(scores) or 1.0)
    nearness = 1e-7 * np.tanh(np.where(labels == 1, -standard, standard) / 4)
    return np.round(misranked_share(scores, labels) + nearness, 10)


def thin_curves(arrays: Mapping[str, np.ndarray]) -> dict[str, list[list[float]]]:
    """``{name: [x, y]}`` of the curves in ``curves.npz`` that are defined."""
    return {
        name: thin_curve(arrays[x], arrays[y])
        for name, (x, y) in CURVES.items()
        if len(arrays.get(x, ())) and len(arrays.get(y, ())) == len(arrays[x])
    }


def thin_curve(x: np.ndarray, y: np.ndarray, most: int = POINTS) -> list[list[float]]:
    """At most ``most`` of a curve's points (K,), evenly along it, with both ends."""
    if len(x) > most:
        along = np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])).cumsum()
        keep = np.searchsorted(along, np.linspace(0, along[-1], most - 1))
        keep = np.unique(np.append(np.minimum(keep, len(x) - 1), len(x) - 1))
        x, y = x[keep], y[keep]
    return [x.round(DIGITS).tolist(), y.round(DIGITS).tolist()]


def training_loss(record: Mapping[str, Any], folder: Path) -> list[float | None]:
    """Mean loss of each epoch from the record, else from Lightning's CSV logger; may be empty."""
    values = record.get("loss_curve")
    if not values:
        try:
            with (folder / _CSV).open(newline="") as file:
                values = [float(row[_LOSS]) for row in csv.DictReader(file) if row.get(_LOSS)]
        except (OSError, ValueError):
            return []
    return [v if v is not None and math.isfinite(v) else None for v in values]
