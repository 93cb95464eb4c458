"""The threshold that a run leaves: from images of the training split, never from the test set."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from anomalib_rd.data import AnomalyDataModule, AnomalyDataset
from anomalib_rd.errors import UserError
from anomalib_rd.metrics.functional import rank_images, rank_pixels
from anomalib_rd.metrics.ranking import best_f1_threshold
from anomalib_rd.results.files import to_json_types
from anomalib_rd.results.threshold import (
    HELD_OUT,
    TRAINING,
    Threshold,
    conformal_threshold,
    images_needed,
)
from anomalib_rd.training.checkpoints import CHECKPOINT, keep
from anomalib_rd.training.normals import as_they_are, scored
from anomalib_rd.training.run_record import Outcome

log = logging.getLogger(__name__)

QUANTILE, F1MAX, NONE = KINDS = ("quantile", "f1max", "none")


def check_threshold(cfg: DictConfig) -> None:
    """Refuse what can't be done, before anything is trained.

    Raises:
        UserError: an unknown kind, a rate or number that is none, F1 without a validation.
    """
    wanted = cfg.threshold
    if wanted.kind not in KINDS:
        raise UserError(f"threshold.kind={wanted.kind}: choose one of {', '.join(KINDS)}")
    if wanted.kind == F1MAX and cfg.validation.kind is None:
        raise UserError(
            "threshold.kind=f1max: needs images with defects; set validation.kind=synthetic"
        )
    if wanted.kind != QUANTILE:
        return
    if not _is_number(wanted.false_positive_rate) or not 0 < wanted.false_positive_rate < 1:
        raise UserError(
            f"threshold.false_positive_rate={wanted.false_positive_rate}: must be between 0 and 1, "
            "such as 0.05"
        )
    count = wanted.train_images
    if count is not None and (not isinstance(count, int) or count < 1):
        raise UserError(
            f"threshold.train_images={wanted.train_images}: must be at least 1, or null for all"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def tell_possible_rate(cfg: DictConfig, data: AnomalyDataModule) -> None:
    """Log which false positive rate the normal images at hand allow, before anything is trained."""
    wanted = cfg.threshold
    if wanted.kind != QUANTILE or not cfg.model.train:
        return
    rate, needed = wanted.false_positive_rate, images_needed(wanted.false_positive_rate)
    if data.val_set is not None:
        count, source = len(data.val_set), "held-out"
        way = f"raise validation.fraction={cfg.validation.fraction} (at most 0.5)"
    else:
        count, source = len(data.train_set), "training"
        if wanted.train_images is not None and wanted.train_images < count:
            count = wanted.train_images
        way = "raise threshold.train_images"
    line = (
        f"threshold.false_positive_rate={rate} needs {needed} normal images; the {count} {source} "
        f"images allow {100 / (count + 1):.2g} %"
    )
    if count < needed:
        log.warning("%s: %s, add images, or ask for another rate", line, way)
    else:
        log.info("%s", line)


def set_threshold(outcome: Outcome) -> None:
    """Set the threshold that the config of a trained run asks for, and keep it in the checkpoint.

    None where none is asked for, a score is not finite, or the student is untrained: a floor to
    compare with judges no images, and need not read the training images.
    """
    if not outcome.config["model"]["train"]:
        return
    outcome.threshold = _wanted(outcome)
    path = Path(outcome.config["run_dir"]) / CHECKPOINT
    if path.is_file():
        keep(
            path,
            threshold=to_json_types(asdict(outcome.threshold)) if outcome.threshold else None,
            map_scale=to_json_types(outcome.map_scale),
        )


def _wanted(outcome: Outcome) -> Threshold | None:
    wanted, data = outcome.config["threshold"], outcome.data
    if wanted["kind"] == QUANTILE:
        rate, train_images = wanted["false_positive_rate"], wanted["train_images"]
        return _quantile_of_normals(outcome, rate, train_images)
    if wanted["kind"] == F1MAX:
        assert data.val_set is not None
        return _best_on_validation(outcome, data.val_set)
    return None


def _quantile_of_normals(
    outcome: Outcome, rate: float, train_images: int | None
) -> Threshold | None:
    data = outcome.data
    held_out = data.val_set is not None
    # Before they are given defects, all held-out images are normal.
    samples = (data.val_set or data.train_set).samples
    if not held_out and train_images is not None and len(samples) > train_images:
        chosen = np.linspace(0, len(samples) - 1, train_images).round().astype(int)
        samples = [samples[row] for row in chosen]
    normal = as_they_are(data, samples)
    scores, peaks = _scored(outcome, normal, lambda maps: maps.flatten(1).amax(1))
    if not np.isfinite(scores).all():
        return None
    value, promised = conformal_threshold(scores, rate)
    highest = peaks.double().numpy()
    return Threshold(
        kind=QUANTILE,
        image=value,
        pixel=conformal_threshold(highest, rate)[0],
        score_std=float(scores.std()),
        source=HELD_OUT if held_out else TRAINING,
        normal_images=len(scores),
        false_positive_rate=promised,
        optimistic=not held_out,
        **_kept(scores, highest),
    )


def _best_on_validation(outcome: Outcome, images: AnomalyDataset) -> Threshold | None:
    scores, maps = _scored(outcome, images, lambda maps: maps)
    if not np.isfinite(scores).all():
        return None
    labels = np.array([sample.label for sample in images.samples])
    masks = torch.stack([images[row]["mask"] for row in range(len(images))])
    normal = scores[labels == 0]
    highest = maps.flatten(1).amax(1).double().numpy()[labels == 0]
    return Threshold(
        kind=F1MAX,
        image=best_f1_threshold(rank_images(torch.from_numpy(scores), torch.from_numpy(labels))),
        pixel=best_f1_threshold(rank_pixels(maps, masks)),
        score_std=float(normal.std()),
        source=HELD_OUT,
        normal_images=len(normal),
        defect_images=int(labels.sum()),
        **_kept(normal, highest),
    )


def _kept(scores: np.ndarray, peaks: np.ndarray) -> dict[str, Any]:
    """What a threshold keeps of normal images, so that another rate can be asked for later."""
    same = np.array_equal(scores, peaks)
    return {
        "normal_scores": tuple(scores.tolist()),
        "normal_peaks": () if same else tuple(peaks.tolist()),
    }


def _scored(
    outcome: Outcome, images: AnomalyDataset, of_maps: Callable[[Tensor], Tensor]
) -> tuple[np.ndarray, Tensor]:
    """Scores (N,) float64, and what is made of the maps (N, ...) float32."""
    batches = [
        (batch.scores.double().cpu(), of_maps(batch.maps.float()).cpu())
        for batch in scored(outcome.module, outcome.data, outcome.trainer, images)
    ]
    scores, maps = zip(*batches, strict=True)
    return torch.cat(scores).numpy(), torch.cat(maps)
