"""The runs as the page draws them, and the test images that several of them share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.reports.cells import records
from anomalib_rd.reports.dashboard.curves import drawn_curves, training_loss
from anomalib_rd.reports.dashboard.defects import best_threshold, defect_types, wrong_pairs
from anomalib_rd.results.record import CURVES, RESULT, read_curves, read_record, read_scores
from anomalib_rd.results.table import metric_columns
from anomalib_rd.results.threshold import describe_threshold


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
        if not (self.folder / CURVES).is_file():
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
