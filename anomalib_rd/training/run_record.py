"""A judged run, and its record."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig

from anomalib_rd.data import AnomalyDataModule, Sample
from anomalib_rd.data.fingerprint import combine_hashes, hash_files
from anomalib_rd.data.validation import path_in_dataset
from anomalib_rd.results.files import printable, sha256_file
from anomalib_rd.results.identity import weights_file_sha256
from anomalib_rd.results.provenance import collect_provenance
from anomalib_rd.results.record import category_set_name
from anomalib_rd.results.threshold import Threshold
from anomalib_rd.training.checkpoints import CHECKPOINT
from anomalib_rd.training.data import ALL_IMAGES, masks_of_kinds
from anomalib_rd.training.model_selection import on_test
from anomalib_rd.training.module import DistillationModule
from anomalib_rd.training.partial import limits_in_force


@dataclass
class Outcome:
    """A run that has been judged; durations in seconds.

    A resumed run's are those of its last part, after the ``resumed_from`` epochs that other
    processes had trained. ``written`` is the config with its interpolations, None of
    an evaluation. ``map_scale``: map values of the darkest and brightest colour of its heatmaps.
    """

    module: DistillationModule
    data: AnomalyDataModule
    config: dict[str, Any]
    trainer: L.Trainer
    written: dict[str, Any] | None = None
    train_s: float = 0.0
    test_s: float = 0.0
    threshold_s: float = 0.0
    total_s: float = 0.0
    resumed_from: int | None = None
    threshold: Threshold | None = None
    map_scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        # Before the training: the file may be another one when it ends.
        self.weights_sha256 = weights_file_sha256(self.config["model"]["teacher"])

    @property
    def scores(self) -> pd.DataFrame:
        """One row a judged test image, in the data set's order; the index is the place there."""
        predictions = self.module.predictions
        assert predictions is not None
        places, test = predictions.rows.tolist(), self.data.split.test
        rows = [
            {
                # It may lie outside of the root, and its name need not be UTF-8.
                "path": printable(path_in_dataset(self.data.root, sample)),
                "category": sample.category,
                "defect": sample.defect,
                "label": sample.label,
                "score": float(score),
            }
            for sample, score in zip(
                (test[place] for place in places), predictions.scores.cpu().numpy(), strict=True
            )
        ]
        return pd.DataFrame(rows, index=places)

    @property
    def partial(self) -> dict[str, Any] | None:
        """The limits that make this less than a whole run, and the test images judged; or None."""
        assert self.module.predictions is not None
        limits = limits_in_force(self.trainer, self.data)
        judged = len(self.module.predictions.scores)
        return {"limits": limits, "judged_images": judged} if limits else None

    @property
    def result(self) -> dict[str, Any]:
        """The record, as ``results.record`` describes it."""
        data, judgement = self.data, self.module.judgement
        judged = self.module.predictions
        assert judged is not None
        names = data.categories
        epochs = self.trainer.current_epoch
        trained_here = epochs - (self.resumed_from or 0)
        return {
            "name": self.config["name"],
            "data": {
                "name": self.config["data"]["name"],
                "category": category_set_name(names) if len(names) > 1 else names[0],
                "group": group(data, names),
                # Of the run's start: a file that has vanished since does not cost the record.
                "fingerprint": combine_hashes(
                    self.module.data_files or hash_files(data.split, data.root)
                ),
                "train_images": len(data.train_set),
                "test_images": by_defect(data.split.test),
            },
            "model": {
                "name": self.config["model"]["name"],
                "teacher": self.config["model"]["teacher"]["name"],
                "teacher_sha256": self.module.teacher_sha256,
                "weights_sha256": self.weights_sha256,
            },
            "seed": self.config["seed"],
            "protocol": {
                "headline": "last epoch",
                "epochs": epochs,
                "resumed_from_epoch": self.resumed_from,
                "partial": self.partial,
                "image_size": list(data.image_size),
                "test_curve": self.config["test_during_training"],
                "validation": validation(self, names),
                "pixels_judged": pixels_judged(self, names),
                "chosen_on_test": on_test(self.config["optimized_metric"]),
            },
            "metrics": judgement.metrics,
            "undefined": judgement.undefined,
            "bounds": judgement.bounds,
            "oracle": best(self.module.curve),
            "test_curve": self.module.curve,
            "loss_curve": self.module.loss_curve,
            "validation": {k: v for k, v in self.module.validation.items() if k != "epoch"} or None,
            "threshold": self.threshold
            and asdict(self.threshold)
            | {"requested_rate": self.config["threshold"].get("false_positive_rate")},
            "map_scale": list(self.map_scale) if self.map_scale else None,
            "duration_s": {
                "train": self.train_s,
                "test": self.test_s,
                "threshold": self.threshold_s,
                "total": self.total_s,
            },
            "images_per_s": {
                # How many images a limit has left is not known.
                "train": rate(
                    0 if self.partial else trained_here * len(data.train_set), self.train_s
                ),
                "test": rate(len(judged.scores), self.test_s),
            },
            "provenance": collect_provenance(accelerator_name(self.trainer)),
            "checkpoint": checkpoint(Path(self.config["run_dir"])),
            "config": self.config,
            "choices": chosen(),
            "config_as_written": self.written,
            "config_digest": self.module.config_digest,
        } | ({"categories": self.by_category} if len(names) > 1 else {})

    @property
    def by_category(self) -> dict[str, dict[str, float]]:
        """The metrics of each category."""
        return {name: judgement.metrics for name, judgement in self.module.judged.items()}


def chosen() -> dict[str, str]:
    """Config group -> the choice in it, as typed; empty where Hydra did not compose the config."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {
        str(key): str(value)
        for key, value in choices.items()
        if value is not None and not str(key).startswith("hydra/")
    }


def group(data: AnomalyDataModule, categories: Sequence[str]) -> str:
    """``texture`` or ``object``, of a set with both ``mixed``."""
    kinds = {"texture" if name in data.textures else "object" for name in categories}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def by_defect(samples: Iterable[Sample]) -> dict[str, int]:
    """How many images there are of each defect type."""
    return dict(Counter(sample.defect for sample in samples))


def validation(outcome: Outcome, categories: Sequence[str]) -> dict[str, Any] | None:
    """What was held out of these categories to choose by, None if nothing was."""
    held_out, said = outcome.data.val_set, outcome.config["validation"]
    if held_out is None:
        return None
    images = by_defect(sample for sample in held_out.samples if sample.category in categories)
    return {"kind": said["kind"], "images": images, "share": said["fraction"]}


def pixels_judged(outcome: Outcome, categories: Sequence[str]) -> dict[str, dict[str, int]] | None:
    """On how many images of which defect type the pixel metrics are; None: on all images."""
    if outcome.config["metrics"]["pixels_on"] == ALL_IMAGES:
        return None
    found: dict[str, dict[str, int]] = {}
    for category, kinds in masks_of_kinds(outcome.data).items():
        if category in categories:
            for kind, (masks, of) in kinds.items():
                before = found.get(kind, {"judged": 0, "of": 0})
                found[kind] = {"judged": before["judged"] + masks, "of": before["of"] + of}
    return found


def best(curve: list[dict[str, float]]) -> dict[str, float] | None:
    """The point of the test curve with the best image AUROC: an oracle, never a headline."""
    defined = [point for point in curve if point["image_auroc"] == point["image_auroc"]]
    return max(defined, key=lambda point: point["image_auroc"]) if defined else None


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
