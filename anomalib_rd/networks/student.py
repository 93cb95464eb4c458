"""The decoder that restores the teacher's features from the fused bottleneck."""

from typing import Literal, get_args

from torch import Tensor, nn

from anomalib_rd.networks.residual import ResidualPlan, initialize, up_stage
from anomalib_rd.networks.teacher import Teacher

Design = Literal["auto", "de_resnet", "generic"]


class Student(nn.Module):
    """Decoder with one upsampling residual stage for each of the teacher's feature maps.

    Args:
        teacher: determines the channels to restore and the kind of residual blocks.
        in_channels: channels of the fused bottleneck, at half the coarsest map's resolution.
        design: ``de_resnet`` (RD4AD's decoder, for a ResNet teacher), ``generic`` (two basic
            blocks per stage, for any teacher) or ``auto`` (``de_resnet`` if possible).

    Raises:
        ValueError: an unknown design, or ``de_resnet`` for a teacher that is not a ResNet.
    """

    def __init__(self, teacher: Teacher, in_channels: int, design: Design = "auto") -> None:
        super().__init__()
        if design not in get_args(Design):
            raise ValueError(f"design={design}: must be one of {', '.join(get_args(Design))}")
        if design == "de_resnet" and not teacher.residual.from_resnet:
            raise ValueError(
                f"design=de_resnet: needs a ResNet teacher, not {teacher.name}; choose auto or "
                "generic"
            )
        plan = teacher.residual
        if design == "generic":
            plan = ResidualPlan.generic(len(teacher.channels))
        stages = []
        # As in RD4AD, the first (coarsest) stage is as deep as the encoder's first stage.
        for channels, depth in zip(reversed(teacher.channels), plan.depths, strict=True):
            stages.append(up_stage(in_channels, channels, depth, plan))
            in_channels = channels
        self.stages = nn.ModuleList(stages)
        initialize(self)

    def forward(self, bottleneck: Tensor) -> list[Tensor]:
        """Features [(B, Ck, Hk, Wk)], finest first, from the bottleneck (B, C, H/32, W/32)."""
        features = [bottleneck]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[:0:-1]
