"""The LightningModule over the four networks."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from anomalib_rd.data.fingerprint import combine_hashes
from anomalib_rd.networks import Distiller
from anomalib_rd.networks.teacher import state_sha256
from anomalib_rd.scoring import AnomalyScorer, ScoringOutput, Tiling, score_images
from anomalib_rd.seeds import process_seed
from anomalib_rd.training import callbacks as randomness
from anomalib_rd.training.evaluation import Judgement, PredictionGatherer, Predictions, judge, mean
from anomalib_rd.training.feature_cache import FeatureCache, Place, cache_features
from anomalib_rd.training.finite import require_finite_maps, require_finite_training
from anomalib_rd.training.normals import fit_scorer

TEACHER = "distiller.teacher."
# Of a checkpoint: the weights to judge by and, where these are an average, those to train on.
WEIGHTS = {"state_dict", "current_model_state"}
VAL, TEST_CURVE, TEST = STAGES = ("val", "test_curve", "test")


class DistillationModule(L.LightningModule):
    """Trains masking, fusion and student against the frozen teacher; scores the test images.

    Args:
        distiller: the four networks.
        scorer: features to maps and scores.
        loss: (teacher_features, student_features) -> scalar.
        optimizer: makes the optimizer from the trainable parameters.
        scheduler: makes the schedule, stepped each epoch, from the optimizer.
        categories: stage (``val, test_curve, test``) -> the category of each of its images;
            what is absent has one category.
        no_masks: category -> why its ground-truth masks can't be used.
        known_pixels: stage -> of each of its images, whether its pixels are judged; all of what is
            absent.
        with_pro_rd4ad: whether RD4AD's per-image PRO is asked for too.
        pixel_bins: stream the pixel metrics in so many bins; None keeps all maps and is exact.
        feature_cache: where the teacher's features of the training images are kept.
        compile: whether masking, fusion and student are compiled for training; the masks are
            drawn outside of the compiled part.
        tiling: what the networks see at once of the images that are scored; None: all.
        config: kept in the checkpoint, plain types only.
        config_digest: kept with it, see `anomalib_rd.results.identity`.

    Attributes:
        data_files: what the images are, see `data.fingerprint.hash_files`; kept in checkpoints.
        predictions: of the last pass over the test images; None before.
        judged: category -> metrics and curves of that pass.
        judgement: their mean, see `predictions.mean`.
        curve: metrics on the test images after each epoch, if asked for; of several categories
            their means.
        curves: the same of each category.
        validation: epoch and metrics of the last look at the held-out images; empty before.
        validations: the same of each category.
        teacher_sha256: of the teacher's state, kept in the checkpoint.
        stopped: whether the training that a checkpoint was taken of had ended early.
    """

    def __init__(
        self,
        distiller: Distiller,
        scorer: AnomalyScorer,
        loss: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        categories: Mapping[str, Sequence[str]] | None = None,
        no_masks: Mapping[str, str] | None = None,
        known_pixels: Mapping[str, Sequence[bool]] | None = None,
        with_pro_rd4ad: bool = False,
        pixel_bins: int | None = None,
        feature_cache: Place = "off",
        compile: bool = False,
        tiling: Tiling | None = None,
        config: Mapping[str, Any] | None = None,
        config_digest: str | None = None,
    ) -> None:
        super().__init__()
        self.distiller, self.scorer, self.loss = distiller, scorer, loss
        self.tiling = tiling or Tiling()
        self.teacher_sha256 = state_sha256(distiller.teacher)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.no_masks, self.with_pro_rd4ad = dict(no_masks or {}), with_pro_rd4ad
        self.config, self.config_digest = dict(config or {}), config_digest
        self.data_files: dict[str, str] = {}
        self.drawn: list[dict[str, Any]] = []
        self.feature_cache = feature_cache
        self.features: FeatureCache | None = None
        # The function and not the module: a checkpoint's keys stay as they are.
        self.restore = compiled(distiller.forward_masked) if compile else distiller.forward_masked
        names, known = dict(categories or {}), dict(known_pixels or {})
        self.gathered = nn.ModuleDict(
            {
                stage: PredictionGatherer(pixel_bins, names.get(stage), known.get(stage))
                for stage in STAGES
            }
        )
        self.predictions: Predictions | None = None
        self.judged: dict[str, Judgement] = {}
        self.judgement = Judgement()
        self.curve: list[dict[str, float]] = []
        self.curves: dict[str, list[dict[str, float]]] = {}
        self.loss_curve: list[float] = []
        self.losses: list[Tensor] = []  # of the epoch's batches, on the device
        self.finite_maps: dict[str, list[Tensor]] = {stage: [] for stage in STAGES}
        self.validation: dict[str, float] = {}
        self.validations: dict[str, dict[str, float]] = {}
        self.stopped = False

    def configure_optimizers(self) -> Any:
        """All trainable parameters together, as in RD4AD."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.make_scheduler is None:
            return optimizer
        return [optimizer], [self.make_scheduler(optimizer)]

    def on_fit_start(self) -> None:
        """Show the teacher all training images, once; nothing where training had ended early."""
        self.trainer.should_stop = self.stopped
        if self.feature_cache == "off" or self.stopped:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        # Under the trainer's precision, or the features would have another type than without.
        with self.trainer.precision_plugin.forward_context():
            self.features = cache_features(
                self.distiller.teacher,
                data.ordered_train_dataloader(),
                count=len(data.train_items),
                place=self.feature_cache,
                device=self.device,
                processes=self.trainer.num_devices,
                silent=self.trainer.progress_bar_callback is None
                or not self.trainer.is_global_zero,
            )
        data.train_by_index = self.features is not None

    def on_fit_end(self) -> None:
        """Give the memory back before the test."""
        self.features = None
        if self.stopped:
            # As Lightning does at the last epoch: the checkpoint was taken before it was counted.
            epochs: Any = self.trainer.fit_loop.epoch_progress.current
            epochs.completed = epochs.processed

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of a batch of normal images or tiles."""
        if self.features is None:
            features = self.distiller.teacher(batch["image"])
        else:
            features = self.features[batch["index"]]
        masks = self.distiller.masking.draw_masks(features)
        loss: Tensor = self.loss(*self.restore(features, masks))
        # The mean over the images of all processes; every rank has as many in each of its batches.
        self.log(
            "train/loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
            batch_size=len(batch["index"]),
        )
        self.losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        """Stop when the loss is lost, before a checkpoint is written: all after would be NaN."""
        self._require_finite_training()
        self.losses.clear()
        self.loss_curve.append(float(self.trainer.callback_metrics["train/loss"]))

    def on_validation_start(self) -> None:
        """In an epoch too: where the loss is lost, NaN in the maps is its consequence."""
        if self.losses:
            self._require_finite_training()
        if self.trainer.state.fn == "fit":
            fit_scorer(self, self.trainer.datamodule, self.trainer)  # type: ignore[attr-defined]

    def test_step(self, batch: dict[str, Tensor]) -> None:
        """Score a batch of test images."""
        self._gather(TEST, batch)

    def on_test_epoch_end(self) -> None:
        """The headline: metrics of the network as it is now, at the end of training."""
        self.predictions, self.judged = self._judge(TEST, self.no_masks)
        self.judgement = mean(self.judged)

    def validation_step(
        self,
        batch: dict[str, Tensor],
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,
    ) -> None:
        """Score a batch of held-out images, or of test images for the opt-in curve."""
        loaders: Any = self.trainer.val_dataloaders
        self._gather(list(loaders)[dataloader_idx], batch)

    def on_validation_epoch_end(self) -> None:
        """A validation, and a point of the curve: by that one nothing is chosen."""
        if self.trainer.sanity_checking:  # of trainer.num_sanity_val_steps: no epoch is over
            for stage in (VAL, TEST_CURVE):
                self._gathered(stage).reset()
                self.finite_maps[stage].clear()
            return
        epoch = self._epochs_trained
        if self._looked_at(VAL):
            judged = self._judge(VAL, {})[1]
            self.validation = {"epoch": epoch, **mean(judged).metrics}
            self.validations = {c: {"epoch": epoch, **j.metrics} for c, j in judged.items()}
        if self._looked_at(TEST_CURVE):
            judged = self._judge(TEST_CURVE, self.no_masks)[1]
            self.curve.append({"epoch": epoch, **mean(judged).metrics})
            for category, one in judged.items():
                self.curves.setdefault(category, []).append({"epoch": epoch, **one.metrics})

    def score(self, images: Tensor) -> ScoringOutput:
        """Anomaly maps and scores of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return score_images(images, self.distiller, self.scorer, self.tiling)

    def _gather(self, stage: str, batch: dict[str, Tensor]) -> None:
        scored = self.score(batch["image"])
        self.finite_maps[stage].append(scored.maps.isfinite().all())
        if self._gathered(stage).streamed:  # it reads the maps now
            self._require_finite_maps(stage)
        self._gathered(stage).update(batch, scored.maps, scored.scores)

    def _require_finite_training(self) -> None:
        require_finite_training(
            self.losses,
            self.own_state().values(),
            epoch=self.current_epoch + 1,
            kept=self.loss_curve,
            way=self._way_out,
        )

    def _require_finite_maps(self, stage: str) -> None:
        require_finite_maps(self.finite_maps[stage], stage, self._epochs_trained, self._way_out)

    @property
    def _epochs_trained(self) -> int:
        return self.current_epoch + (self.trainer.state.fn == "fit")

    @property
    def _way_out(self) -> str:
        """What to change where numbers are lost."""
        full = self.trainer.precision == "32-true"
        return "lower optimizer.lr" + ("" if full else " or train with trainer.precision=32-true")

    def _gathered(self, stage: str) -> PredictionGatherer:
        gathered = self.gathered[stage]
        assert isinstance(gathered, PredictionGatherer)
        return gathered

    def _looked_at(self, stage: str) -> bool:
        return self._gathered(stage).update_called

    def _judge(
        self, stage: str, no_masks: Mapping[str, str]
    ) -> tuple[Predictions, dict[str, Judgement]]:
        """Judge each category by its own images; the logged values are the means over them."""
        self._require_finite_maps(stage)
        self.finite_maps[stage].clear()
        gathered = self._gathered(stage)
        predictions = gathered.predictions()
        judged = {
            category: judge(own, streamed, no_masks.get(category), self.with_pro_rd4ad)
            for category, own, streamed in gathered.by_category(predictions)
        }
        gathered.reset()
        logged = {stage: mean(judged)}
        if len(judged) > 1 and stage != TEST:  # of the test there is a summary
            logged |= {f"{stage}/{category}": one for category, one in judged.items()}
        for prefix, judgement in logged.items():
            defined = {k: v for k, v in judgement.metrics.items() if not math.isnan(v)}
            self.log_dict({f"{prefix}/{name}": value for name, value in defined.items()})
        return predictions, judged

    def own_state(self) -> dict[str, Tensor]:
        """The state without the frozen teacher, whose weights the config says."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(TEACHER)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the teacher out; keep its hash, the config and all random numbers' states."""
        for key in WEIGHTS & checkpoint.keys():
            checkpoint[key] = {
                k: v for k, v in checkpoint[key].items() if not k.startswith(TEACHER)
            }
        checkpoint["config"], checkpoint["config_digest"] = self.config, self.config_digest
        checkpoint["teacher_sha256"] = self.teacher_sha256
        checkpoint["test_curve"], checkpoint["validation"] = self.curve, self.validation
        checkpoint["test_curves"], checkpoint["validations"] = self.curves, self.validations
        checkpoint["loss_curve"], checkpoint["stopped"] = self.loss_curve, self.trainer.should_stop
        checkpoint["data_files"] = self.data_files
        checkpoint["data_fingerprint"] = (
            combine_hashes(self.data_files) if self.data_files else None
        )
        checkpoint["randomness"] = randomness.capture_all()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the teacher's own weights back, so that loading stays strict."""
        own = self.distiller.teacher.state_dict(prefix=TEACHER)
        for key in WEIGHTS & checkpoint.keys():
            checkpoint[key] = {**checkpoint[key], **own}
        self.curve = list(checkpoint.get("test_curve", []))
        self.curves = {c: list(points) for c, points in checkpoint.get("test_curves", {}).items()}
        self.validations = dict(checkpoint.get("validations", {}))
        self.loss_curve = list(checkpoint.get("loss_curve", []))
        self.validation = dict(checkpoint.get("validation", {}))
        self.stopped = checkpoint.get("stopped", False)
        self.drawn = checkpoint.get("randomness", [])

    def on_train_start(self) -> None:
        """Draw on where a resumed training was cut off, whatever was drawn since.

        A new one's processes were seeded alike, for the same networks; from here on each draws
        masks of its own.
        """
        if self.global_rank < len(self.drawn):
            randomness.restore(self.drawn[self.global_rank])
        elif self.global_rank:
            randomness.seed_all(process_seed(self.config["seed"], self.global_rank))


def compiled(work: Callable[..., Any]) -> Callable[..., Any]:
    """``work`` compiled, with PyTorch's own random numbers.

    Inductor has a generator of its own: with it a layer that draws, such as dropout in a student
    of the user's, would learn something else than without compiling.
    """
    return torch.compile(work, options={"fallback_random": True})
