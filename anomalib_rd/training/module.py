"""The LightningModule: networks, loss, training step and scoring."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from anomalib_rd.networks import Distiller
from anomalib_rd.scoring import AnomalyScorer, ScoringOutput, Tiling, score_images
from anomalib_rd.training.feature_cache import FeatureCache

TEACHER = "distiller.teacher."
# Keys of a checkpoint that contain weights; the second exists only with a moving average.
WEIGHTS = {"state_dict", "current_model_state"}


class DistillationModule(L.LightningModule):
    """Trains masking, fusion and student against the frozen teacher, and scores images.

    Metrics, the feature cache, random states and checks are callbacks.

    Args:
        distiller: the four networks.
        scorer: features to maps and scores.
        loss: (teacher_features, student_features) -> scalar.
        optimizer: trainable parameters -> optimizer.
        scheduler: optimizer -> learning rate schedule, stepped each epoch.
        tiling: tiles of the images when they are scored; None: complete images.
        compile: whether masking, fusion and student are compiled for training. The masks are
            drawn outside of the compiled part.

    Attributes:
        feature_cache: set during the training by the callback `FeatureCaching`, if enabled.
    """

    def __init__(
        self,
        distiller: Distiller,
        scorer: AnomalyScorer,
        loss: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        tiling: Tiling | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.distiller, self.scorer, self.loss = distiller, scorer, loss
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.tiling = tiling or Tiling()
        self.feature_cache: FeatureCache | None = None
        self.restore = distiller.forward_masked
        if compile:
            # Compiling the function, not the module, does not change the checkpoint's keys.
            # fallback_random: a dropout in a user's student draws as it would in eager mode.
            self.restore = torch.compile(self.restore, options={"fallback_random": True})

    def configure_optimizers(self) -> Any:
        """One optimizer for all trainable parameters, as in RD4AD."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.make_scheduler is None:
            return optimizer
        return [optimizer], [self.make_scheduler(optimizer)]

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of a batch of normal images or tiles."""
        if self.feature_cache is None:
            features = self.distiller.teacher(batch["image"])
        else:
            features = self.feature_cache[batch["index"]]
        masks = self.distiller.masking.draw_masks(features)
        loss: Tensor = self.loss(*self.restore(features, masks))
        # sync_dist takes the mean over ranks, whose batches are equally large.
        self.log(
            "train/loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
            batch_size=len(batch["index"]),
        )
        return loss

    def validation_step(self, batch: dict[str, Tensor], *_: Any) -> dict[str, Tensor]:
        """Score a batch of validation images."""
        return self.score(batch["image"])._asdict()

    def test_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Score a batch of test images."""
        return self.score(batch["image"])._asdict()

    def score(self, images: Tensor) -> ScoringOutput:
        """Anomaly maps and scores of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return score_images(images, self.distiller, self.scorer, self.tiling)

    def state_without_teacher(self) -> dict[str, Tensor]:
        """The state dict without the frozen teacher, which the config names."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(TEACHER)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remove the teacher's weights."""
        for key in WEIGHTS & checkpoint.keys():
            weights = checkpoint[key].items()
            checkpoint[key] = {k: v for k, v in weights if not k.startswith(TEACHER)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the teacher's weights, so that loading stays strict."""
        teacher = self.distiller.teacher.state_dict(prefix=TEACHER)
        for key in WEIGHTS & checkpoint.keys():
            checkpoint[key] = {**checkpoint[key], **teacher}
