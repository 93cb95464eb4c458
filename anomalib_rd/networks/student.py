"""The decoder that restores the teacher's features from the fused bottleneck."""

from typing import Literal

from torch import Tensor, nn

from anomalib_rd.errors import UserError
from anomalib_rd.networks.residual import ResidualPlan, initialize, up_stage
from anomalib_rd.networks.teacher import Teacher

Design = Literal["auto", "de_resnet", "generic"]


class Student(nn.Module):
    """Decoder with one upsampling residual stage for each of the teacher's feature maps.

    Args:
        teacher: gives the channels to restore and the residual blocks to mirror.
        in_channels: channels of the fused bottleneck, at half the coarsest map's resolution.
        design: ``de_resnet`` is RD4AD's decoder and needs a ResNet teacher, ``generic`` has two
            basic blocks a stage and follows any teacher, ``auto`` takes the first where it
            exists and else the second.

    Raises:
        UserError: ``de_resnet`` for a teacher that is no ResNet, an unknown design.
    """

    def __init__(self, teacher: Teacher, in_channels: int, design: Design = "auto") -> None:
        super().__init__()
        if design not in ("auto", "de_resnet", "generic"):
            raise UserError(
                f"model.student.design={design}: choose one of auto, de_resnet, generic"
            )
        if design == "de_resnet" and not teacher.residual.from_resnet:
            raise UserError(
                f"model.student.design=de_resnet mirrors a ResNet, and the teacher is "
                f"{teacher.name}; choose "
                "model.student.design=generic, or a ResNet with model/teacher=..."
            )
        plan = teacher.residual
        if design == "generic":
            plan = ResidualPlan.generic(len(teacher.channels))
        stages = []
        # RD4AD gives its first (coarsest) stage the depth of the encoder's first.
        for channels, depth in zip(reversed(teacher.channels), plan.depths, strict=True):
            stages.append(up_stage(in_channels, channels, depth, plan))
            in_channels = channels
        self.stages = nn.ModuleList(stages)
        initialize(self)

    def forward(self, bottleneck: Tensor) -> list[Tensor]:
        """Restore the features, shaped as the teacher's, finest first.

        Args:
            bottleneck: (B, C, H/32, W/32).
        """
        restored = []
        for stage in self.stages:
            bottleneck = stage(bottleneck)
            restored.append(bottleneck)
        return restored[::-1]
