"""Residual stages that halve (fusion) or double (student) the resolution."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

Kind = Literal["basic", "bottleneck"]


@dataclass(frozen=True)
class ResidualPlan:
    """Residual blocks of fusion and student, which mirror the teacher's.

    Attributes:
        kind: ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1; outputs four times the planes).
        depths: number of blocks per stage, finest stage first.
        base_width: width of a bottleneck's 3x3 convolution per 64 planes.
        from_resnet: whether the teacher is a ResNet, for which RD4AD defines a decoder.
    """

    kind: Kind
    depths: tuple[int, ...]
    base_width: int = 64
    from_resnet: bool = False

    @property
    def expansion(self) -> int:
        """Output channels of a block per plane."""
        return 4 if self.kind == "bottleneck" else 1

    @staticmethod
    def generic(stages: int) -> "ResidualPlan":
        """Two basic blocks per stage, for a teacher of any family."""
        return ResidualPlan("basic", (2,) * stages)

    @staticmethod
    def from_network(net: Any, stages: int) -> "ResidualPlan":
        """The blocks of a timm ResNet; generic ones for any other network."""
        layers: list[Any] = [getattr(net, f"layer{i}", None) for i in range(1, stages + 1)]
        if not all(isinstance(layer, nn.Sequential) and len(layer) for layer in layers):
            return ResidualPlan.generic(stages)
        depths = tuple(len(layer) for layer in layers)
        first = next(net.layer1.children())
        if not hasattr(first, "conv3"):
            return ResidualPlan("basic", depths, from_resnet=True)
        width, planes = first.conv2.out_channels, first.conv3.out_channels // 4
        return ResidualPlan("bottleneck", depths, width * 64 // planes, from_resnet=True)


def conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 stride-2 convolution, batch norm, ReLU: (B, Cin, H, W) -> (B, Cout, H/2, W/2)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def down_stage(in_channels: int, out_channels: int, depth: int, plan: ResidualPlan) -> nn.Module:
    """Residual stage of torchvision's blocks that halves the resolution."""
    block: type[BasicBlock] | type[Bottleneck] = (
        Bottleneck if plan.kind == "bottleneck" else BasicBlock
    )
    planes = out_channels // plan.expansion
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False),
        nn.BatchNorm2d(out_channels),
    )
    blocks = [block(in_channels, planes, 2, shortcut, base_width=plan.base_width)]
    blocks += [block(out_channels, planes, base_width=plan.base_width) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def up_stage(in_channels: int, out_channels: int, depth: int, plan: ResidualPlan) -> nn.Module:
    """Residual stage that doubles the resolution: a decoder stage of RD4AD (arXiv 2201.10703).

    In the first block a transposed 2x2 convolution of stride 2 replaces the 3x3 convolution; the
    shortcut is another one with batch norm.
    """
    blocks = [UpBlock(in_channels, out_channels, plan, upsample=True)]
    blocks += [UpBlock(out_channels, out_channels, plan) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


class UpBlock(nn.Module):
    """Residual block of a decoder: (B, Cin, H, W) -> (B, Cout, sH, sW), s = 2 if ``upsample``."""

    def __init__(
        self, in_channels: int, out_channels: int, plan: ResidualPlan, upsample: bool = False
    ) -> None:
        super().__init__()

        def spatial_conv(inside: int, outside: int) -> nn.Conv2d | nn.ConvTranspose2d:
            if upsample:
                return nn.ConvTranspose2d(inside, outside, 2, stride=2, bias=False)
            return nn.Conv2d(inside, outside, 3, padding=1, bias=False)

        planes = out_channels // plan.expansion
        width = planes * plan.base_width // 64
        if plan.kind == "bottleneck":
            convolutions = [
                nn.Conv2d(in_channels, width, 1, bias=False),
                spatial_conv(width, width),
                nn.Conv2d(width, out_channels, 1, bias=False),
            ]
        else:
            convolutions = [
                spatial_conv(in_channels, out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            ]
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]
        self.residual = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if upsample:
            self.shortcut = nn.Sequential(
                nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolutions and add the shortcut."""
        out: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return out


def initialize(module: nn.Module) -> None:
    """RD4AD's initialisation: convolutions Kaiming normal (fan out), batch norms 1 and 0.

    Transposed convolutions keep torch's default, as in RD4AD.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
