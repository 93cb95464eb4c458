"""Attention on one feature map, by name; the blocks are timm's."""

from typing import Literal

from timm.layers.attention2d import MultiQueryAttention2d
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from timm.layers.eca import EcaModule
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn

from anomalib_rd.errors import UserError

Attention = Literal["none", "se", "eca", "cbam", "coordinate", "self"]


def attention_block(name: Attention, channels: int, shrink: int) -> nn.Module:
    """A block (B, C, H, W) -> (B, C, H, W).

    Args:
        name: ``se`` (arXiv 1709.01507), ``eca`` (1910.03151), ``cbam`` (1807.06521),
            ``coordinate`` (2103.02907), ``self`` (multi-query, keys on a coarser grid) or ``none``.
        channels: C.
        shrink: how many times coarser, a side, the keys of ``self`` are than its queries.

    Raises:
        UserError: for another name.
    """
    if name == "none":
        return nn.Identity()
    if name == "se":
        return SEModule(channels, rd_ratio=1 / 16, rd_divisor=4)
    if name == "eca":
        return EcaModule(channels)
    if name == "cbam":
        return CbamModule(channels, rd_divisor=4)
    if name == "coordinate":
        return CoordAttn(channels)
    if name == "self":
        return SelfAttention(channels, shrink)
    raise UserError(
        f"model.fusion.attention={name}: choose one of none, se, eca, cbam, coordinate, self"
    )


class SelfAttention(nn.Module):
    """Residual multi-query self-attention whose keys lie on a grid ``shrink`` times coarser."""

    def __init__(self, channels: int, shrink: int) -> None:
        super().__init__()
        heads = next(h for h in (4, 2, 1) if channels % h == 0)
        self.attend = MultiQueryAttention2d(channels, num_heads=heads, kv_stride=shrink)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = x + self.attend(x)
        return out
