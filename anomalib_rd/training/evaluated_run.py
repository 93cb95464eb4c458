"""An evaluated run, and its record."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig

from anomalib_rd.data import AnomalyDataModule, Sample
from anomalib_rd.data.validation_split import path_in_dataset
from anomalib_rd.results.files import printable, sha256_file
from anomalib_rd.results.identity import weights_file_sha256
from anomalib_rd.results.provenance import collect_provenance
from anomalib_rd.results.record import category_set_name
from anomalib_rd.results.threshold import Threshold
from anomalib_rd.training.checkpoints import CHECKPOINT, RunIdentity
from anomalib_rd.training.config_checks import ALL_IMAGES, on_test
from anomalib_rd.training.evaluation import Evaluator, Predictions
from anomalib_rd.training.module import DistillationModule
from anomalib_rd.training.run_checks import limits_in_force, masks_by_defect


@dataclass
class EvaluatedRun:
    """A run that has been evaluated.

    Attributes:
        config_as_written: with its interpolations; None for an evaluation.
        train_s, test_s, threshold_s, total_s: seconds, of this process alone.
        resumed_from: epochs trained before this process, if resumed.
        loss_curve: mean loss of each epoch.
        map_scale: map values of the darkest and brightest colour of its heatmaps.
    """

    module: DistillationModule
    data: AnomalyDataModule
    evaluator: Evaluator
    trainer: L.Trainer
    identity: RunIdentity
    config_as_written: dict[str, Any] | None = None
    loss_curve: list[float] = field(default_factory=list)
    train_s: float = 0.0
    test_s: float = 0.0
    threshold_s: float = 0.0
    total_s: float = 0.0
    resumed_from: int | None = None
    threshold: Threshold | None = None
    map_scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        # Hashed before the training, during which the file may change.
        self.weights_sha256 = weights_file_sha256(self.config["model"]["teacher"])

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config in plain types."""
        return self.identity.config

    @property
    def predictions(self) -> Predictions:
        """The predictions of the test."""
        assert self.evaluator.predictions is not None
        return self.evaluator.predictions

    @property
    def scores(self) -> pd.DataFrame:
        """One row per evaluated test image, in the data set's order, with its index there."""
        rows, test = self.predictions.rows.tolist(), self.data.split.test
        scores = self.predictions.scores.cpu().numpy()
        table = [
            {
                # The path may be outside of the root, and need not be UTF-8.
                "path": printable(path_in_dataset(self.data.root, test[row])),
                "category": test[row].category,
                "defect": test[row].defect,
                "label": test[row].label,
                "score": float(score),
            }
            for row, score in zip(rows, scores, strict=True)
        ]
        return pd.DataFrame(table, index=rows)

    @property
    def by_category(self) -> dict[str, dict[str, float]]:
        """The metrics of each category."""
        return {name: result.metrics for name, result in self.evaluator.results.items()}

    @property
    def record(self) -> dict[str, Any]:
        """The record, as ``results.record`` describes it."""
        data, config, evaluator = self.data, self.config, self.evaluator
        names = data.categories
        tested = len(self.predictions.scores)
        limits = limits_in_force(self.trainer, data)
        epochs, device = self.trainer.current_epoch, self.trainer.strategy.root_device
        checkpoint = Path(config["run_dir"]) / CHECKPOINT
        # The number of images under a limit is unknown.
        trained = 0 if limits else (epochs - (self.resumed_from or 0)) * len(data.train_set)
        record = {
            "name": config["name"],
            "data": {
                "name": config["data"]["name"],
                "category": category_set_name(names) if len(names) > 1 else names[0],
                "group": group(data, names),
                # From the start of the run: a file deleted since then must not prevent the record.
                "fingerprint": self.identity.data_fingerprint,
                "train_images": len(data.train_set),
                "test_images": count_by_defect(data.split.test),
            },
            "model": {
                "name": config["model"]["name"],
                "teacher": config["model"]["teacher"]["name"],
                "teacher_sha256": self.identity.teacher_sha256,
                "weights_sha256": self.weights_sha256,
            },
            "seed": config["seed"],
            "protocol": {
                "headline": "last epoch",
                "epochs": epochs,
                "resumed_from_epoch": self.resumed_from,
                "partial": {"limits": limits, "judged_images": tested} if limits else None,
                "image_size": list(data.image_size),
                "test_curve": config["test_during_training"],
                "validation": validation_images(self, names),
                "pixels_judged": pixels_evaluated(self, names),
                "chosen_on_test": on_test(config["optimized_metric"]),
            },
            "metrics": evaluator.result.metrics,
            "undefined": evaluator.result.undefined,
            "bounds": evaluator.result.bounds,
            "oracle": best_point(evaluator.test_curve),
            "test_curve": evaluator.test_curve,
            "loss_curve": self.loss_curve,
            "validation": without_epoch(evaluator.validation),
            "threshold": self.threshold
            and asdict(self.threshold)
            | {"requested_rate": config["threshold"].get("false_positive_rate")},
            "map_scale": list(self.map_scale) if self.map_scale else None,
            "duration_s": {
                "train": self.train_s,
                "test": self.test_s,
                "threshold": self.threshold_s,
                "total": self.total_s,
            },
            "images_per_s": {
                "train": rate(trained, self.train_s),
                "test": rate(tested, self.test_s),
            },
            "provenance": collect_provenance(
                torch.cuda.get_device_name(device) if device.type == "cuda" else None
            ),
            "checkpoint": {"path": CHECKPOINT, "sha256": sha256_file(checkpoint)}
            if checkpoint.is_file()
            else None,
            "config": config,
            "choices": group_choices(),
            "config_as_written": self.config_as_written,
            "config_digest": self.identity.config_digest,
        }
        return record | ({"categories": self.by_category} if len(names) > 1 else {})


def group_choices() -> dict[str, str]:
    """Config group -> chosen option; empty if Hydra did not compose the config."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {
        str(key): str(value)
        for key, value in choices.items()
        if value is not None and not str(key).startswith("hydra/")
    }


def group(data: AnomalyDataModule, categories: Sequence[str]) -> str:
    """``texture`` or ``object``; ``mixed`` for a set with both."""
    kinds = {"texture" if name in data.textures else "object" for name in categories}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def count_by_defect(samples: Iterable[Sample]) -> dict[str, int]:
    """Defect type -> number of images."""
    return dict(Counter(sample.defect for sample in samples))


def validation_images(run: EvaluatedRun, categories: Sequence[str]) -> dict[str, Any] | None:
    """The held-out images of these categories; None without a validation."""
    held_out, config = run.data.val_set, run.config["validation"]
    if held_out is None:
        return None
    images = count_by_defect(s for s in held_out.samples if s.category in categories)
    return {"kind": config["kind"], "images": images, "share": config["fraction"]}


def pixels_evaluated(
    run: EvaluatedRun, categories: Sequence[str]
) -> dict[str, dict[str, int]] | None:
    """Defect type -> images in the pixel metrics (``judged``) and in total; None if all are."""
    if run.config["metrics"]["pixels_on"] == ALL_IMAGES:
        return None
    counts: dict[str, dict[str, int]] = {}
    for category, kinds in masks_by_defect(run.data).items():
        if category in categories:
            for kind, (masks, images) in kinds.items():
                before = counts.get(kind, {"judged": 0, "of": 0})
                counts[kind] = {"judged": before["judged"] + masks, "of": before["of"] + images}
    return counts


def best_point(curve: list[dict[str, float]]) -> dict[str, float] | None:
    """The point of the test curve with the best image AUROC: an oracle, never a headline."""
    defined = [point for point in curve if point["image_auroc"] == point["image_auroc"]]
    return max(defined, key=lambda point: point["image_auroc"]) if defined else None


def without_epoch(point: dict[str, float]) -> dict[str, float] | None:
    """The metrics of a validation; None if there was none."""
    return {k: v for k, v in point.items() if k != "epoch"} or None


def rate(images: int, seconds: float) -> float | None:
    """Images per second; None without images or time."""
    return images / seconds if images and seconds else None
