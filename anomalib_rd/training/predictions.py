"""What a pass over the test images gives, gathered from all batches and processes."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from anomalib_rd.metrics import StreamedPixelMetrics
from anomalib_rd.metrics.functional import pro_rd4ad, rank_images, rank_pixels, why_undefined


class Predictions(NamedTuple):
    """One row an image, in the data set's order.

    Attributes:
        scores: (N,) float32, higher is more anomalous.
        labels: (N,) int64, 1 for a defect.
        maps: (N, H, W) float32 anomaly maps; none if the pixel metrics were streamed.
        masks: (N, H, W) bool ground truth, likewise.
    """

    scores: Tensor
    labels: Tensor
    maps: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Judgement:
    """What the metrics say of predictions.

    Attributes:
        metrics: fractions; NaN where undefined.
        undefined: metric -> why it is NaN.
        curves: for plots, thinned; see ``Ranking.curves``.
        bounds: proven least and greatest exact value of streamed metrics; empty if all are exact.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)


def judge(
    predictions: Predictions,
    streamed: StreamedPixelMetrics | None,
    no_masks: str | None,
    with_pro_rd4ad: bool,
) -> Judgement:
    """All metrics and curves of the predictions.

    Args:
        predictions: of all test images.
        streamed: the pixels of all test images, where the maps were not kept.
        no_masks: why the ground-truth masks can't be used, or None.
        with_pro_rd4ad: whether RD4AD's per-image PRO is asked for too.
    """
    maps, masks = predictions.maps, predictions.masks
    if no_masks is not None:
        maps, masks, streamed = maps[:0], masks[:0], None
    images = rank_images(predictions.scores, predictions.labels)
    image = images.metrics()
    if streamed is None:
        ranking = rank_pixels(maps, masks)
        pixel, curves, bounds = ranking.metrics(), ranking.curves(), {}
        if with_pro_rd4ad:
            pixel["pro_rd4ad"] = pro_rd4ad(maps, masks)
        why = why_undefined(masks)
    else:
        pixel, curves, bounds = streamed.compute(), streamed.curves(), streamed.bounds()
        why = streamed.why_undefined()
    reasons = dict.fromkeys(image, why_undefined(predictions.labels)) | dict.fromkeys(
        pixel, no_masks or why
    )
    return Judgement(
        metrics=image | pixel,
        undefined={name: reason for name, reason in reasons.items() if reason},
        curves=images.curves() | curves,
        bounds=bounds,
    )


class PredictionGatherer(Metric):
    """Collects batches of predictions; independent of batch size and number of processes.

    ``compute`` orders by the images' index and drops repeated images.
    """

    full_state_update = False
    index: list[Tensor]
    scores: list[Tensor]
    labels: list[Tensor]
    maps: list[Tensor]
    masks: list[Tensor]

    def __init__(self, pixel_bins: int | None = None) -> None:
        super().__init__()
        for name in Predictions._fields:
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("index", [], dist_reduce_fx="cat")
        self.streamed = None if pixel_bins is None else StreamedPixelMetrics(pixel_bins)

    def update(self, batch: dict[str, Tensor], maps: Tensor, scores: Tensor) -> None:
        """Add a batch: the data set's items, maps (B, H, W) and scores (B,)."""
        self.index.append(batch["index"])
        self.labels.append(batch["label"])
        self.scores.append(scores.float())
        masks = batch["mask"]
        if self.streamed is not None:
            self.streamed.update(maps.float(), masks)
            maps, masks = maps[:0], masks[:0]
        self.maps.append(maps.float())
        self.masks.append(masks)

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        if self.streamed is not None:
            self.streamed.reset()

    def compute(self) -> Predictions:
        """All predictions in the data set's order."""
        index = dim_zero_cat(self.index)
        order = torch.argsort(index, stable=True)
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = index[order].diff() != 0
        order = order[first]
        maps, masks = dim_zero_cat(self.maps), dim_zero_cat(self.masks)
        kept = order if len(maps) else order[:0]
        return Predictions(
            scores=dim_zero_cat(self.scores)[order],
            labels=dim_zero_cat(self.labels)[order],
            maps=maps[kept],
            masks=masks[kept],
        )
