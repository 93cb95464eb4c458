"""Normal images through a trained model: for its threshold, and for a scorer that wants them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor

from anomalib_rd.data import AnomalyDataModule, AnomalyDataset, Sample
from anomalib_rd.scoring import ScoringOutput, StandardisedScorer

if TYPE_CHECKING:
    from anomalib_rd.training.module import DistillationModule


def as_they_are(data: AnomalyDataModule, samples: Sequence[Sample]) -> AnomalyDataset:
    """The images of samples, without the training's transform or a validation's defects."""
    return AnomalyDataset(samples, data.image_size, cache=data.train_set.cache, masks=False)


def scored(
    module: "DistillationModule",
    data: AnomalyDataModule,
    trainer: L.Trainer,
    images: AnomalyDataset,
) -> Iterator[ScoringOutput]:
    """Maps and scores of the images, in batches in their order, as the trainer's test has them."""
    for batch in data.ordered_dataloader(images):
        yield score_as_tested(module, trainer, batch["image"])


@torch.inference_mode()
def score_as_tested(
    module: "DistillationModule", trainer: L.Trainer, images: Tensor
) -> ScoringOutput:
    """Maps and scores of images (B, 3, H, W), on the trainer's device and in its precision."""
    # After fitting and testing Lightning leaves the module on the CPU.
    device = trainer.strategy.root_device
    module.to(device).eval()
    with trainer.precision_plugin.forward_context():
        return module.score(images.to(device))


def fit_scorer(module: "DistillationModule", data: AnomalyDataModule, trainer: L.Trainer) -> bool:
    """Show a scorer that standardises all training images, with the networks as they are now.

    Returns:
        Whether it is such a scorer.
    """
    if not isinstance(module.scorer, StandardisedScorer):
        return False
    images = as_they_are(data, data.train_set.samples)
    module.scorer.fit(one.maps for one in scored(module, data, trainer, images))
    return True
