"""Fit a run's threshold to images of the training split, never of the test set."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomalib_rd.data import AnomalyDataModule, AnomalyDataset
from anomalib_rd.metrics.functional import rank_images, rank_pixels
from anomalib_rd.metrics.ranking import best_f1_threshold
from anomalib_rd.results.threshold import HELD_OUT, TRAINING, Threshold, conformal_threshold
from anomalib_rd.scoring import ScoringOutput
from anomalib_rd.training.config_checks import F1MAX, QUANTILE
from anomalib_rd.training.evaluation import untransformed

Score = Callable[[AnomalyDataset], Iterable[ScoringOutput]]


def fit_threshold(
    config: Mapping[str, Any], data: AnomalyDataModule, score: Score
) -> Threshold | None:
    """Fit the threshold; None if the config asks for none or a score is not finite.

    Args:
        config: ``threshold`` of the run's config.
        data: the run's images.
        score: scores images with the trained model, in batches.
    """
    if config["kind"] == QUANTILE:
        return _quantile(config["false_positive_rate"], config["train_images"], data, score)
    if config["kind"] == F1MAX:
        assert data.val_set is not None
        return _max_f1(data.val_set, score)
    return None


def _quantile(
    rate: float, train_images: int | None, data: AnomalyDataModule, score: Score
) -> Threshold | None:
    held_out = data.val_set is not None
    # All held-out images are normal: the synthetic defects are added later.
    samples = (data.val_set or data.train_set).samples
    if not held_out and train_images is not None and len(samples) > train_images:
        rows = np.linspace(0, len(samples) - 1, train_images).round().astype(int)
        samples = [samples[row] for row in rows]
    images = untransformed(data, samples)
    scores, peaks = _collect(score(images), lambda maps: maps.flatten(1).amax(1))
    if not np.isfinite(scores).all():
        return None
    value, promised_rate = conformal_threshold(scores, rate)
    highest = peaks.double().numpy()
    return Threshold(
        kind=QUANTILE,
        image=value,
        pixel=conformal_threshold(highest, rate)[0],
        score_std=float(scores.std()),
        source=HELD_OUT if held_out else TRAINING,
        normal_images=len(scores),
        false_positive_rate=promised_rate,
        optimistic=not held_out,
        **_normal_values(scores, highest),
    )


def _max_f1(images: AnomalyDataset, score: Score) -> Threshold | None:
    scores, maps = _collect(score(images), lambda maps: maps)
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
        **_normal_values(normal, highest),
    )


def _normal_values(scores: np.ndarray, peaks: np.ndarray) -> dict[str, Any]:
    """The scores of normal images, to derive thresholds of other rates later."""
    return {
        "normal_scores": tuple(scores.tolist()),
        "normal_peaks": () if np.array_equal(scores, peaks) else tuple(peaks.tolist()),
    }


def _collect(
    batches: Iterable[ScoringOutput], reduce: Callable[[Tensor], Tensor]
) -> tuple[np.ndarray, Tensor]:
    """Scores (N,) float64, and the reduced maps (N, ...) float32."""
    pairs = [(b.scores.double().cpu(), reduce(b.maps.float()).cpu()) for b in batches]
    scores, maps = zip(*pairs, strict=True)
    return torch.cat(scores).numpy(), torch.cat(maps)
