"""From a judged run to what it leaves: record, heatmaps, pictures in W&B."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.loggers import Logger

from anomalib_rd.data import AnomalyDataModule, dataset_fingerprint
from anomalib_rd.reports.heatmaps import Example, choose_examples, write_heatmaps
from anomalib_rd.results.files import sha256_file
from anomalib_rd.results.provenance import provenance
from anomalib_rd.results.record import write_record
from anomalib_rd.results.threshold import Threshold, write_threshold
from anomalib_rd.tracking.evaluation import LoggedImage, log_evaluation
from anomalib_rd.training.checkpoints import CHECKPOINT
from anomalib_rd.training.choices import on_test
from anomalib_rd.training.gallery import leave_gallery
from anomalib_rd.training.module import DistillationModule


@dataclass
class Outcome:
    """A run that has been judged; durations in seconds.

    A resumed run's are those of its last part, after the ``resumed_from`` epochs that other
    processes had trained.
    """

    module: DistillationModule
    data: AnomalyDataModule
    config: dict[str, Any]
    trainer: L.Trainer
    train_s: float = 0.0
    test_s: float = 0.0
    threshold_s: float = 0.0
    total_s: float = 0.0
    resumed_from: int | None = None
    threshold: Threshold | None = None

    @property
    def scores(self) -> pd.DataFrame:
        """One row a test image, in the data set's order."""
        predictions = self.module.predictions
        assert predictions is not None
        rows = [
            {
                "path": sample.path.relative_to(self.data.root).as_posix(),
                "category": sample.category,
                "defect": sample.defect,
                "label": sample.label,
                "score": float(score),
            }
            for sample, score in zip(
                self.data.split.test, predictions.scores.cpu().numpy(), strict=True
            )
        ]
        return pd.DataFrame(rows)

    @property
    def result(self) -> dict[str, Any]:
        """The record, as ``results.record`` describes it."""
        data, judgement = self.data, self.module.judgement
        epochs = self.trainer.current_epoch
        trained_here = epochs - (self.resumed_from or 0)
        return {
            "name": self.config["name"],
            "data": {
                "name": self.config["data"]["name"],
                "category": data.category,
                "group": "texture" if data.category in data.textures else "object",
                "fingerprint": dataset_fingerprint(data.split, data.root),
                "train_images": len(data.train_set),
                "test_images": dict(Counter(s.defect for s in data.split.test)),
            },
            "model": {
                "name": self.config["model"]["name"],
                "teacher": self.config["model"]["teacher"]["name"],
            },
            "seed": self.config["seed"],
            "protocol": {
                "headline": "last epoch",
                "epochs": epochs,
                "resumed_from_epoch": self.resumed_from,
                "image_size": list(data.image_size),
                "test_curve": self.config["test_curve"],
                "validation": validation(data, self.config),
                "chosen_on_test": on_test(self.config["objective"]),
            },
            "metrics": judgement.metrics,
            "undefined": judgement.undefined,
            "bounds": judgement.bounds,
            "oracle": best(self.module.curve),
            "test_curve": self.module.curve,
            "loss_curve": self.module.loss_curve,
            "validation": {k: v for k, v in self.module.validation.items() if k != "epoch"} or None,
            "threshold": asdict(self.threshold) if self.threshold else None,
            "duration_s": {
                "train": self.train_s,
                "test": self.test_s,
                "threshold": self.threshold_s,
                "total": self.total_s,
            },
            "images_per_s": {
                "train": rate(trained_here * len(data.train_set), self.train_s),
                "test": rate(len(data.split.test), self.test_s),
            },
            "provenance": provenance(accelerator_name(self.trainer)),
            "checkpoint": checkpoint(Path(self.config["run_dir"])),
            "config": self.config,
            "config_digest": self.module.config_digest,
        }


def validation(data: AnomalyDataModule, config: dict[str, Any]) -> dict[str, Any] | None:
    """What was held out of the training to choose by, None if nothing was."""
    if data.val_set is None:
        return None
    images = dict(Counter(sample.defect for sample in data.val_set.samples))
    return {"kind": config["data"]["val"], "images": images, "share": config["data"]["val_share"]}


def leave_record(outcome: Outcome, run_dir: Path) -> None:
    """Write threshold, scores, curves and, last, the result."""
    write_threshold(run_dir, outcome.threshold)
    write_record(run_dir, outcome.result, outcome.scores, outcome.module.judgement.curves)


def show_images(outcome: Outcome, loggers: list[Logger], run_dir: Path, count: int) -> None:
    """Draw heatmaps of ``count`` test images, spread over the defect types, and log them.

    All test images, small, go into the gallery.
    """
    judgement, scores = outcome.module.judgement, outcome.scores
    examples = [example(outcome, scores, row) for row in choose_examples(scores, count)]
    if examples:
        # From the median up: what is as usual is drawn dark, on one scale for all images.
        maps = np.stack([shown.anomaly_map for shown in examples])
        write_heatmaps(run_dir, examples, vmin=float(np.median(maps)), vmax=float(maps.max()))
    threshold = pixel_threshold(judgement.curves)
    leave_gallery(outcome, run_dir, threshold if threshold < float("inf") else None)
    images = [
        LoggedImage(
            image=shown.image,
            mask=shown.mask,
            anomaly_map=shown.anomaly_map,
            predicted=shown.anomaly_map >= threshold,
            caption=f"{shown.defect} {Path(shown.path).stem}, score {shown.score:.3f}",
            path=shown.path,
        )
        for shown in examples
    ]
    for logger in loggers:
        log_evaluation(
            logger,
            category=outcome.data.category,
            metrics=judgement.metrics,
            scores=scores,
            images=images,
        )


def example(outcome: Outcome, scores: pd.DataFrame, row: int) -> Example:
    """A test image as it was seen, with its map and ground truth."""
    sample, item = outcome.data.split.test[row], outcome.data.test_set[row]
    has_truth = sample.label == 0 or sample.mask is not None
    return Example(
        path=scores["path"][row],
        defect=sample.defect,
        score=scores["score"][row],
        image=item["image"].permute(1, 2, 0).numpy(),
        mask=item["mask"].numpy() if has_truth else None,
        anomaly_map=anomaly_map(outcome.module, row, item["image"]).cpu().numpy(),
    )


def anomaly_map(module: DistillationModule, row: int, image: torch.Tensor) -> torch.Tensor:
    """Map (H, W) of a test image: the one judged, or where none was kept, made once more."""
    assert module.predictions is not None
    if len(module.predictions.maps):
        return module.predictions.maps[row]
    module.eval()
    with torch.inference_mode():
        return module.score(image[None].to(module.device)).maps[0]


def best(curve: list[dict[str, float]]) -> dict[str, float] | None:
    """The point of the test curve with the best image AUROC: an oracle, never a headline."""
    defined = [point for point in curve if point["image_auroc"] == point["image_auroc"]]
    return max(defined, key=lambda point: point["image_auroc"]) if defined else None


def pixel_threshold(curves: dict[str, np.ndarray]) -> float:
    """The map value of the best pixel F1, for drawing alone; infinite where undefined."""
    recall, precision = curves["pixel_pr_recall"], curves["pixel_pr_precision"]
    if not len(recall):
        return float("inf")
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(curves["pixel_pr_threshold"][f1.argmax()])


def rate(images: int, seconds: float) -> float | None:
    """Images a second; None where nothing was timed."""
    return images / seconds if images and seconds else None


def accelerator_name(trainer: L.Trainer) -> str | None:
    """The GPU's name, None on a CPU."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def checkpoint(run_dir: Path) -> dict[str, str] | None:
    """Path and hash of the checkpoint, None if none was kept."""
    path = run_dir / CHECKPOINT
    return {"path": CHECKPOINT, "sha256": sha256_file(path)} if path.is_file() else None
