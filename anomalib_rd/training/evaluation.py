"""Evaluation: predictions gathered over batches and processes, and their metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from anomalib_rd.data import AnomalyDataModule, AnomalyDataset, Sample
from anomalib_rd.errors import NotFiniteError
from anomalib_rd.metrics.functional import rank_images, rank_pixels
from anomalib_rd.metrics.pro_rd4ad import pro_rd4ad
from anomalib_rd.metrics.streaming import StreamedPixelMetrics
from anomalib_rd.scoring import ScoringOutput, StandardisedScorer
from anomalib_rd.training.callbacks import divergence_advice
from anomalib_rd.training.module import DistillationModule

VAL, TEST_CURVE, TEST = STAGES = ("val", "test_curve", "test")
ALL = "all"


class Predictions(NamedTuple):
    """One row per image, in the data set's order.

    Attributes:
        scores: (N,) float32, higher is more anomalous.
        labels: (N,) int64, 1 for a defect.
        maps: (N, H, W) float32 anomaly maps; empty if the pixel metrics were streamed.
        masks: (N, H, W) bool ground truth, likewise.
        rows: (N,) int64 index of each image in the data set, ascending; with gaps if batches are
            limited.
    """

    scores: Tensor
    labels: Tensor
    maps: Tensor
    masks: Tensor
    rows: Tensor

    def maps_at(self, rows: Sequence[int]) -> Tensor:
        """The maps (len(rows), H, W) of images, by their indices in the data set."""
        positions = torch.searchsorted(self.rows.cpu(), torch.tensor(rows, dtype=torch.int64))
        return self.maps[positions.to(self.maps.device)]


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics and curves of predictions.

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


def evaluate_predictions(
    predictions: Predictions,
    streamed: StreamedPixelMetrics | None,
    no_masks: str | None,
    with_pro_rd4ad: bool,
) -> EvaluationResult:
    """All metrics and curves of the predictions.

    Args:
        predictions: of all test images.
        streamed: their pixel metrics, if the maps were streamed.
        no_masks: why the ground-truth masks can't be used; None if they can.
        with_pro_rd4ad: whether to add RD4AD's per-image PRO.
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
    return EvaluationResult(
        metrics=image | pixel,
        undefined={name: reason for name, reason in reasons.items() if reason},
        curves=images.curves() | curves,
        bounds=bounds,
    )


def mean_over_categories(results: Mapping[str, EvaluationResult]) -> EvaluationResult:
    """The mean of each metric over the categories; the result itself if there is only one.

    A metric that is undefined for one category is undefined: the mean over the others would be
    another quantity. The bounds are the means of the bounds; there are no curves.
    """
    if len(results) == 1:
        return next(iter(results.values()))
    values = list(results.values())
    undefined: dict[str, str] = {}
    for category, result in results.items():
        for name, reason in result.undefined.items():
            undefined.setdefault(name, f"{category}: {reason}")
    bounds = {
        name: (
            float(np.mean([result.bounds[name][0] for result in values])),
            float(np.mean([result.bounds[name][1] for result in values])),
        )
        for name in values[0].bounds
        if all(name in result.bounds for result in values)
    }
    metrics = {n: float(np.mean([r.metrics[n] for r in values])) for n in values[0].metrics}
    return EvaluationResult(metrics=metrics, undefined=undefined, bounds=bounds)


class PredictionGatherer(Metric):
    """Collects batches of predictions; independent of batch size and number of processes.

    ``compute`` sorts by the images' index and drops repeated images.

    Args:
        pixel_bins: stream the pixel metrics of each category in this many bins; None: collect
            the maps.
        categories: category of each image, in the data set's order; None: there is only one.
        known: whether the pixels of each image are evaluated; None: those of all images.
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
        # A module list moves them to the device, but hides their type: hence Any.
        streamed = [StreamedPixelMetrics(pixel_bins or 0) for _ in range(count)]
        self.streamed: Any = nn.ModuleList(streamed)

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
        for streamed in self.streamed:
            streamed.reset()

    def compute(self) -> Predictions:
        """All predictions in the data set's order."""
        index = dim_zero_cat(self.rows)
        order = torch.argsort(index, stable=True)
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = index[order].diff() != 0
        order = order[first]
        maps, masks = dim_zero_cat(self.maps), dim_zero_cat(self.masks)
        with_maps = order if len(maps) else order[:0]
        return Predictions(
            scores=dim_zero_cat(self.scores)[order],
            labels=dim_zero_cat(self.labels)[order],
            maps=maps[with_maps],
            masks=masks[with_maps],
            rows=index[order],
        )

    def predictions(self) -> Predictions:
        """Like ``compute``, also for a single image, whose dimension torchmetrics removes."""
        computed = self.compute()
        flat = {name: getattr(computed, name).reshape(-1) for name in ("scores", "labels", "rows")}
        return computed._replace(**flat)

    def by_category(
        self, predictions: Predictions
    ) -> Iterator[tuple[str, Predictions, StreamedPixelMetrics | None]]:
        """Category, its images' predictions, and its streamed pixel metrics if there are no maps.

        Maps and masks are only those of the images whose pixels are evaluated.
        """
        for number, name in enumerate(self.names):
            own = predictions
            if len(self.names) > 1:
                rows = (self.part[predictions.rows.cpu()] == number).nonzero().squeeze(1)
                own = Predictions(*(v[rows] if len(v) else v for v in predictions))
            if self.known is not None and len(own.maps):
                known = self.known[own.rows.cpu()].to(own.maps.device)
                own = own._replace(maps=own.maps[known], masks=own.masks[known])
            yield name, own, self.streamed[number] if self.streamed else None

    def _stream(self, index: Tensor, maps: Tensor, masks: Tensor) -> None:
        if self.known is not None:
            rows = self.known[index.cpu()].to(maps.device)
            index, maps, masks = index[rows], maps[rows], masks[rows]
        if len(self.names) == 1:
            self.streamed[0].update(maps, masks)
            return
        part = self.part[index.cpu()]
        # Update every category with every batch, since the processes gather them together.
        for number, streamed in enumerate(self.streamed):
            rows = (part == number).nonzero().squeeze(1).to(maps.device)
            streamed.update(maps[rows], masks[rows])


class Evaluator(L.Callback):
    """Evaluates the scores of validation and test images, by category.

    Args:
        categories: stage (``val, test_curve, test``) -> category of each of its images; a missing
            stage has one category.
        known_pixels: stage -> whether the pixels of each of its images are evaluated; those of a
            missing stage all are.
        no_masks: category -> why its ground-truth masks can't be used.
        with_pro_rd4ad: whether to add RD4AD's per-image PRO.
        pixel_bins: stream the pixel metrics in this many bins; None collects all maps (exact).

    Attributes:
        predictions: of the last test; None before.
        results: category -> metrics and curves of the last test.
        result: their mean, see `mean_over_categories`.
        test_curve: epoch and mean metrics on the test images after each epoch, if requested.
        test_curves: the same of each category.
        validation: epoch and mean metrics of the last validation; empty before.
        validations: the same of each category.
    """

    def __init__(
        self,
        categories: Mapping[str, Sequence[str]] | None = None,
        known_pixels: Mapping[str, Sequence[bool]] | None = None,
        no_masks: Mapping[str, str] | None = None,
        with_pro_rd4ad: bool = False,
        pixel_bins: int | None = None,
    ) -> None:
        names, known = dict(categories or {}), dict(known_pixels or {})
        self.gatherers = {
            stage: PredictionGatherer(pixel_bins, names.get(stage), known.get(stage))
            for stage in STAGES
        }
        self.finite: dict[str, list[Tensor]] = {stage: [] for stage in STAGES}
        self.no_masks, self.with_pro_rd4ad = dict(no_masks or {}), with_pro_rd4ad
        self.predictions: Predictions | None = None
        self.results: dict[str, EvaluationResult] = {}
        self.result = EvaluationResult()
        self.test_curve: list[dict[str, float]] = []
        self.test_curves: dict[str, list[dict[str, float]]] = {}
        self.validation: dict[str, float] = {}
        self.validations: dict[str, dict[str, float]] = {}

    SAVED = ("test_curve", "test_curves", "validation", "validations")

    def state_dict(self) -> dict[str, Any]:
        """The results between epochs, for the checkpoint."""
        return {name: getattr(self, name) for name in self.SAVED}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the results of a checkpoint."""
        for name in self.SAVED:
            setattr(self, name, state_dict[name])

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fit a standardising scorer to the weights of this epoch."""
        self._start(pl_module, VAL, TEST_CURVE)
        if trainer.state.fn == "fit":
            fit_scorer(pl_module, trainer.datamodule, trainer)  # type: ignore[attr-defined]

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        _module: Any,
        outputs: Any,
        batch: dict[str, Tensor],
        _batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Gather held-out images, or test images for the optional curve."""
        loaders: Any = trainer.val_dataloaders
        self._gather(trainer, list(loaders)[dataloader_idx], batch, outputs)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate the held-out images, and add a point to the curve, which selects nothing."""
        if trainer.sanity_checking:
            return
        epoch = epochs_trained(trainer)
        if self.gatherers[VAL].update_called:
            _, results = self._evaluate(trainer, pl_module, VAL, {})
            self.validation = {"epoch": epoch, **mean_over_categories(results).metrics}
            self.validations = {c: {"epoch": epoch, **r.metrics} for c, r in results.items()}
        if self.gatherers[TEST_CURVE].update_called:
            _, results = self._evaluate(trainer, pl_module, TEST_CURVE, self.no_masks)
            self.test_curve.append({"epoch": epoch, **mean_over_categories(results).metrics})
            for category, result in results.items():
                point = {"epoch": epoch, **result.metrics}
                self.test_curves.setdefault(category, []).append(point)

    def on_test_start(self, _trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Discard the predictions of an earlier test."""
        self._start(pl_module, TEST)

    def on_test_batch_end(
        self, trainer: L.Trainer, _module: Any, outputs: Any, batch: dict[str, Tensor], *_: Any
    ) -> None:
        """Gather test images."""
        self._gather(trainer, TEST, batch, outputs)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the headline metrics."""
        self.predictions, self.results = self._evaluate(trainer, pl_module, TEST, self.no_masks)
        self.result = mean_over_categories(self.results)

    def _start(self, pl_module: L.LightningModule, *stages: str) -> None:
        for stage in stages:
            self.gatherers[stage].reset()
            self.gatherers[stage].to(pl_module.device)
            self.finite[stage].clear()

    def _gather(
        self, trainer: L.Trainer, stage: str, batch: dict[str, Tensor], outputs: Any
    ) -> None:
        maps: Tensor = outputs["maps"]
        self.finite[stage].append(maps.isfinite().all())
        if self.gatherers[stage].streamed:  # there are no maps to check at the end
            self._require_finite_maps(trainer, stage)
        self.gatherers[stage].update(batch, maps, outputs["scores"])

    def _require_finite_maps(self, trainer: L.Trainer, stage: str) -> None:
        finite = torch.stack(self.finite[stage]).tolist() if self.finite[stage] else []
        if not all(finite):
            raise NotFiniteError(
                f"the anomaly maps of {stage} batch {finite.index(False) + 1} have NaN or infinite "
                f"values after epoch {epochs_trained(trainer)}; {divergence_advice(trainer)}"
            )

    def _evaluate(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        stage: str,
        no_masks: Mapping[str, str],
    ) -> tuple[Predictions, dict[str, EvaluationResult]]:
        """Evaluate each category on its own images; log the means over the categories."""
        self._require_finite_maps(trainer, stage)
        gatherer = self.gatherers[stage]
        predictions = gatherer.predictions()
        results = {
            category: evaluate_predictions(
                own, streamed, no_masks.get(category), self.with_pro_rd4ad
            )
            for category, own, streamed in gatherer.by_category(predictions)
        }
        gatherer.reset()
        logged = {stage: mean_over_categories(results)}
        if len(results) > 1 and stage != TEST:  # the test has a summary
            logged |= {f"{stage}/{category}": result for category, result in results.items()}
        for prefix, result in logged.items():
            defined = {k: v for k, v in result.metrics.items() if not math.isnan(v)}
            pl_module.log_dict({f"{prefix}/{name}": value for name, value in defined.items()})
        return predictions, results


def epochs_trained(trainer: L.Trainer) -> int:
    """Epochs that the evaluated weights were trained for, also within ``fit``."""
    return trainer.current_epoch + (trainer.state.fn == "fit")


def untransformed(data: AnomalyDataModule, samples: Sequence[Sample]) -> AnomalyDataset:
    """The images of samples, without the training's transform or synthetic defects."""
    return AnomalyDataset(samples, data.image_size, cache=data.train_set.cache, masks=False)


def score_batches(
    module: DistillationModule, data: AnomalyDataModule, trainer: L.Trainer, images: AnomalyDataset
) -> Iterator[ScoringOutput]:
    """Score images in order, in batches of the test's size."""
    for batch in data.ordered_dataloader(images):
        yield score_as_tested(module, trainer, batch["image"])


@torch.inference_mode()
def score_as_tested(
    module: DistillationModule, trainer: L.Trainer, images: Tensor
) -> ScoringOutput:
    """Score images (B, 3, H, W) on the trainer's device and in its precision."""
    # Lightning moves the module to the CPU after fitting and testing.
    device = trainer.strategy.root_device
    module.to(device).eval()
    with trainer.precision_plugin.forward_context():
        return module.score(images.to(device))


def fit_scorer(module: Any, data: AnomalyDataModule, trainer: L.Trainer) -> bool:
    """Fit a standardising scorer to all training images; returns whether the scorer is one."""
    if not isinstance(module.scorer, StandardisedScorer):
        return False
    images = untransformed(data, data.train_set.samples)
    module.scorer.fit(scored.maps for scored in score_batches(module, data, trainer, images))
    return True
