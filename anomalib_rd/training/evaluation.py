"""What a pass over the test images gives, gathered from all batches and processes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from anomalib_rd.metrics.functional import rank_images, rank_pixels
from anomalib_rd.metrics.pro_rd4ad import pro_rd4ad
from anomalib_rd.metrics.streaming import StreamedPixelMetrics

ALL = "all"


class Predictions(NamedTuple):
    """One row an image, in the data set's order.

    Attributes:
        scores: (N,) float32, higher is more anomalous.
        labels: (N,) int64, 1 for a defect.
        maps: (N, H, W) float32 anomaly maps; none if the pixel metrics were streamed.
        masks: (N, H, W) bool ground truth, likewise.
        rows: (N,) int64 place of each image in the data set, ascending. A limit on the batches
            leaves some out.
    """

    scores: Tensor
    labels: Tensor
    maps: Tensor
    masks: Tensor
    rows: Tensor

    def maps_at(self, rows: Sequence[int]) -> Tensor:
        """The maps (len(rows), H, W) of images, by their places in the data set."""
        places = torch.searchsorted(self.rows.cpu(), torch.tensor(rows, dtype=torch.int64))
        return self.maps[places.to(self.maps.device)]


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
        why = ranking.why_undefined()
    else:
        pixel, curves, bounds = streamed.compute(), streamed.curves(), streamed.bounds()
        why = streamed.why_undefined()
    reasons = dict.fromkeys(image, images.why_undefined()) | dict.fromkeys(pixel, no_masks or why)
    return Judgement(
        metrics=image | pixel,
        undefined={name: reason for name, reason in reasons.items() if reason},
        curves=images.curves() | curves,
        bounds=bounds,
    )


def mean(judged: Mapping[str, Judgement]) -> Judgement:
    """The metrics' means over the categories; of one category its own judgement.

    A metric that a category lacks is undefined: the mean over the others would be another's. The
    bounds are the means of the categories' own; there are no curves.
    """
    if len(judged) == 1:
        return next(iter(judged.values()))
    every = list(judged.values())
    undefined: dict[str, str] = {}
    for category, one in judged.items():
        for name, reason in one.undefined.items():
            undefined.setdefault(name, f"{category}: {reason}")
    bounds = {
        name: (
            float(np.mean([one.bounds[name][0] for one in every])),
            float(np.mean([one.bounds[name][1] for one in every])),
        )
        for name in every[0].bounds
        if all(name in one.bounds for one in every)
    }
    metrics = {n: float(np.mean([one.metrics[n] for one in every])) for n in every[0].metrics}
    return Judgement(metrics=metrics, undefined=undefined, bounds=bounds)


class PredictionGatherer(Metric):
    """Collects batches of predictions; independent of batch size and number of processes.

    ``compute`` orders by the images' index and drops repeated images.

    Args:
        pixel_bins: stream the pixel metrics of each category in so many bins; None: keep the maps.
        categories: of each image, in the data set's order; None: all are of one.
        known: of each image, whether its pixels are judged; None: of all.
    """

    full_state_update = False
    rows: list[Tensor]
    scores: list[Tensor]
    labels: list[Tensor]
    maps: list[Tensor]
    masks: list[Tensor]

    def __init__(
        self,
        pixel_bins: int | None = None,
        categories: Sequence[str] | None = None,
        known: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.names = list(dict.fromkeys(categories or [ALL]))
        self.part = torch.tensor([self.names.index(name) for name in categories or []])
        self.known = None if known is None else torch.tensor(list(known), dtype=torch.bool)
        for name in Predictions._fields:
            self.add_state(name, [], dist_reduce_fx="cat")
        count = 0 if pixel_bins is None else len(self.names)
        self.streamed = nn.ModuleList([StreamedPixelMetrics(pixel_bins or 0) for _ in range(count)])

    def update(self, batch: dict[str, Tensor], maps: Tensor, scores: Tensor) -> None:
        """Add a batch: the data set's items, maps (B, H, W) and scores (B,)."""
        self.rows.append(batch["index"])
        self.labels.append(batch["label"])
        self.scores.append(scores.float())
        masks = batch["mask"]
        if self.streamed:
            self._stream(batch["index"], maps.float(), masks)
            maps, masks = maps[:0], masks[:0]
        self.maps.append(maps.float())
        self.masks.append(masks)

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        for streamed in self._streams():
            streamed.reset()

    def compute(self) -> Predictions:
        """All predictions in the data set's order."""
        index = dim_zero_cat(self.rows)
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
            rows=index[order],
        )

    def predictions(self) -> Predictions:
        """What ``compute`` gives, of a single image too: torchmetrics takes its dimension away."""
        found = self.compute()
        flat = {name: getattr(found, name).reshape(-1) for name in ("scores", "labels", "rows")}
        return found._replace(**flat)

    def by_category(
        self, predictions: Predictions
    ) -> Iterator[tuple[str, Predictions, StreamedPixelMetrics | None]]:
        """Each category, its images' predictions, and its streamed pixels where maps are not kept.

        The maps and masks are those of the images whose pixels are judged.

        Args:
            predictions: of ``predictions``.
        """
        streams: list[StreamedPixelMetrics | None] = list(self._streams())
        for number, name in enumerate(self.names):
            own = predictions
            if len(self.names) > 1:
                rows = (self.part[predictions.rows.cpu()] == number).nonzero().squeeze(1)
                # Without maps there is none to choose from.
                own = Predictions(*(v[rows] if len(v) else v for v in predictions))
            if self.known is not None and len(own.maps):
                known = self.known[own.rows.cpu()].to(own.maps.device)
                own = own._replace(maps=own.maps[known], masks=own.masks[known])
            yield name, own, streams[number] if streams else None

    def _streams(self) -> list[StreamedPixelMetrics]:
        return [one for one in self.streamed if isinstance(one, StreamedPixelMetrics)]

    def _stream(self, index: Tensor, maps: Tensor, masks: Tensor) -> None:
        if self.known is not None:
            rows = self.known[index.cpu()].to(maps.device)
            index, maps, masks = index[rows], maps[rows], masks[rows]
        if len(self.names) == 1:
            return self._streams()[0].update(maps, masks)
        part = self.part[index.cpu()]
        # Of all categories each time: processes gather what each of them has of every one.
        for number, streamed in enumerate(self._streams()):
            rows = (part == number).nonzero().squeeze(1).to(maps.device)
            streamed.update(maps[rows], masks[rows])
        return None
