"""Attention-based multi-scale fusion into the one-class bottleneck."""

from torch import Tensor, cat, nn

from anomalib_rd.networks.attention import Attention, attention_block
from anomalib_rd.networks.residual import conv_bn_relu, down_stage, initialize
from anomalib_rd.networks.teacher import Teacher


class Fusion(nn.Module):
    """RD4AD's multi-scale fusion and one-class embedding, with attention on each scale before it.

    Every scale is brought to the coarsest one's resolution by stride-2 convolutions and
    concatenated (MFF); a residual stage halves it once more (OCE). With ``attention="none"`` and
    a ResNet teacher this is RD4AD's bottleneck (arXiv 2201.10703), layer for layer.

    Args:
        teacher: gives channels, strides and the kind of residual blocks.
        attention: block on each scale; see ``attention_block``.
        depth: residual blocks of the one-class embedding; None takes RD4AD's 3 bottleneck or
            2 basic blocks.

    Attributes:
        out_channels: channels of the bottleneck.
    """

    def __init__(
        self, teacher: Teacher, attention: Attention = "none", depth: int | None = None
    ) -> None:
        super().__init__()
        channels, strides, plan = teacher.channels, teacher.strides, teacher.residual
        shrinks = [strides[-1] // stride for stride in strides]
        self.downs = nn.ModuleList()
        for scale in range(len(channels)):
            steps = [
                conv_bn_relu(channels[i], channels[i + 1]) for i in range(scale, len(channels) - 1)
            ]
            self.downs.append(nn.Sequential(*steps))
        self.out_channels = 2 * channels[-1]
        if depth is None:
            depth = 3 if plan.kind == "bottleneck" else 2
        self.embed = down_stage(channels[-1] * len(channels), self.out_channels, depth, plan)
        initialize(self)
        # After the initialisation above: timm's blocks bring their own.
        self.attentions = nn.ModuleList(
            attention_block(attention, c, s) for c, s in zip(channels, shrinks, strict=True)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse [Fk (B, Ck, Hk, Wk)] into (B, C, H/32, W/32)."""
        scales = zip(features, self.attentions, self.downs, strict=True)
        fused: Tensor = self.embed(cat([down(attend(f)) for f, attend, down in scales], dim=1))
        return fused
