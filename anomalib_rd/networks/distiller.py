"""The whole method at one sitting: teacher -> masking -> fusion -> student."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anomalib_rd.networks.fusion import Fusion
from anomalib_rd.networks.masking import FeatureMasking, NoMasking
from anomalib_rd.networks.student import Student
from anomalib_rd.networks.teacher import Teacher


class Distilled(NamedTuple):
    """What one pass gives, finest scale first.

    Attributes:
        features: the teacher's, [(B, Ck, Hk, Wk)].
        restored: the student's, shaped as the teacher's.
        masks: [(B, 1, Hk, Wk)], 1 where the student's view was hidden.
    """

    features: list[Tensor]
    restored: list[Tensor]
    masks: list[Tensor]


class Distiller(nn.Module):
    """Reverse distillation: the student restores the teacher's features from a bottleneck.

    Args:
        teacher: the frozen encoder.
        masking: makes the masking from ``channels``.
        fusion: makes the fusion from ``teacher``.
        student: makes the decoder from ``teacher`` and ``in_channels``.
    """

    def __init__(
        self,
        teacher: Teacher,
        masking: Callable[..., FeatureMasking | NoMasking],
        fusion: Callable[..., Fusion],
        student: Callable[..., Student],
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.masking = masking(channels=teacher.channels)
        self.fusion = fusion(teacher=teacher)
        self.student = student(teacher=teacher, in_channels=self.fusion.out_channels)

    def forward(self, images: Tensor) -> Distilled:
        """Distil a batch of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.restore(self.teacher(images))

    def restore(self, features: list[Tensor]) -> Distilled:
        """Restore the teacher's features [(B, Ck, Hk, Wk)], which may come from a cache."""
        return self.restore_masked(features, self.masking.masks(features))

    def restore_masked(self, features: list[Tensor], rounds: list[list[Tensor]]) -> Distilled:
        """Restore the features through masks that are drawn already.

        Drawing is kept apart so that this part can be compiled: a compiled graph draws other
        random numbers than PyTorch does step by step.

        Args:
            features: the teacher's, [(B, Ck, Hk, Wk)].
            rounds: the masks of each round, [[(B, 1, Hk, Wk)]].
        """
        views = [self.student(self.fusion(self.masking(features, masks))) for masks in rounds]
        if len(rounds) == 1:
            return Distilled(features, views[0], rounds[0])
        # Complementary masks: each position as restored where it was hidden.
        restored, hidden = [], []
        for k in range(len(features)):
            masks = torch.stack([round_[k] for round_ in rounds])
            restored.append((masks * torch.stack([view[k] for view in views])).sum(0))
            hidden.append(masks.sum(0))
        return Distilled(features, restored, hidden)
