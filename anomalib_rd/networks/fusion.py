"""Attention-based multi-scale fusion into the one-class bottleneck."""

from itertools import pairwise

from torch import Tensor, cat, nn

from anomalib_rd.networks.attention import Attention, attention_block
from anomalib_rd.networks.residual import conv_bn_relu, down_stage, initialize
from anomalib_rd.networks.teacher import Teacher


class Fusion(nn.Module):
    """RD4AD's multi-scale feature fusion (MFF) and one-class embedding (OCE), after attention.

    Stride-2 convolutions bring every scale to the coarsest one's resolution; they are concatenated
    (MFF) and a residual stage halves the resolution once more (OCE). With ``attention="none"`` and
    a ResNet teacher this is RD4AD's bottleneck (arXiv 2201.10703), layer for layer.

    Args:
        teacher: determines channels, strides and the kind of residual blocks.
        attention: block on each scale, see `attention_block`.
        depth: residual blocks of the one-class embedding; None: as in RD4AD, 3 bottleneck or 2
            basic blocks.

    Attributes:
        out_channels: channels of the bottleneck.
    """

    def __init__(
        self, teacher: Teacher, attention: Attention = "none", depth: int | None = None
    ) -> None:
        super().__init__()
        channels, strides, plan = teacher.channels, teacher.strides, teacher.residual
        self.downs = nn.ModuleList(
            nn.Sequential(*(conv_bn_relu(a, b) for a, b in pairwise(channels[scale:])))
            for scale in range(len(channels))
        )
        self.out_channels = 2 * channels[-1]
        if depth is None:
            depth = 3 if plan.kind == "bottleneck" else 2
        self.embed = down_stage(channels[-1] * len(channels), self.out_channels, depth, plan)
        initialize(self)
        # After `initialize`: timm's blocks have their own initialisation.
        self.attentions = nn.ModuleList(
            attention_block(attention, count, strides[-1] // stride)
            for count, stride in zip(channels, strides, strict=True)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse [Fk (B, Ck, Hk, Wk)] into (B, C, H/32, W/32)."""
        scales = zip(features, self.attentions, self.downs, strict=True)
        fused: Tensor = self.embed(cat([down(attend(f)) for f, attend, down in scales], dim=1))
        return fused
