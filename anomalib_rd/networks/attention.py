"""Attention blocks of timm by name."""

from typing import Literal, get_args

from timm.layers.attention2d import MultiQueryAttention2d
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from timm.layers.eca import EcaModule
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn

Attention = Literal["none", "se", "eca", "cbam", "coordinate", "self"]


def attention_block(name: Attention, channels: int, kv_stride: int) -> nn.Module:
    """Make a block (B, C, H, W) -> (B, C, H, W).

    Args:
        name: ``se`` (arXiv 1709.01507), ``eca`` (1910.03151), ``cbam`` (1807.06521),
            ``coordinate`` (2103.02907), ``self`` (multi-query, keys on a coarser grid) or ``none``.
        channels: C.
        kv_stride: stride of the keys' grid of ``self``.

    Raises:
        ValueError: unknown name.
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
        return SelfAttention(channels, kv_stride)
    raise ValueError(f"attention={name}: must be one of {', '.join(get_args(Attention))}")


class SelfAttention(nn.Module):
    """Residual multi-query self-attention whose keys lie on a grid ``kv_stride`` times coarser."""

    def __init__(self, channels: int, kv_stride: int) -> None:
        super().__init__()
        heads = next(h for h in (4, 2, 1) if channels % h == 0)
        self.attend = MultiQueryAttention2d(channels, num_heads=heads, kv_stride=kv_stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = x + self.attend(x)
        return out
