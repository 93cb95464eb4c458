"""The complete method in one module: teacher -> masking -> fusion -> student."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anomalib_rd.networks.fusion import Fusion
from anomalib_rd.networks.masking import FeatureMasking, NoMasking
from anomalib_rd.networks.student import Student
from anomalib_rd.networks.teacher import Teacher


class DistillationOutput(NamedTuple):
    """Features of both networks, [(B, Ck, Hk, Wk)], finest scale first, with equal shapes."""

    teacher_features: list[Tensor]
    student_features: list[Tensor]


class Distiller(nn.Module):
    """Reverse distillation: the student restores the teacher's features from a bottleneck.

    Args:
        teacher: the frozen encoder.
        masking: (channels) -> masking.
        fusion: (teacher) -> fusion.
        student: (teacher, in_channels) -> student.
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

    def forward(self, images: Tensor) -> DistillationOutput:
        """Features of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.forward_features(self.teacher(images))

    def forward_features(self, features: list[Tensor]) -> DistillationOutput:
        """Restore the teacher's features [(B, Ck, Hk, Wk)], which may come from a cache."""
        return self.forward_masked(features, self.masking.draw_masks(features))

    def forward_masked(
        self, features: list[Tensor], mask_sets: list[list[Tensor]]
    ) -> DistillationOutput:
        """Restore the teacher's features [(B, Ck, Hk, Wk)] through given masks.

        Masks are drawn separately so that this part can be compiled: a compiled graph draws other
        random numbers than eager PyTorch.

        Args:
            features: of the teacher.
            mask_sets: [[(B, 1, Hk, Wk)]]. With several complementary sets, each position is
                restored by the pass whose set hides it.
        """
        outputs = [self.student(self.fusion(self.masking(features, masks))) for masks in mask_sets]
        if len(outputs) == 1:
            return DistillationOutput(features, outputs[0])
        masks_by_scale, outputs_by_scale = zip(*mask_sets, strict=True), zip(*outputs, strict=True)
        restored = [
            (torch.stack(masks) * torch.stack(maps)).sum(0)
            for masks, maps in zip(masks_by_scale, outputs_by_scale, strict=True)
        ]
        return DistillationOutput(features, restored)
