"""Large images by tiles: where they lie, and how their maps become one without seams."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from anomalib_rd.errors import UserError

Box = tuple[slice, slice]
"""Rows and columns of a tile in its image."""


class Tiling:
    """Overlapping tiles of one size that cover an image.

    The tiles of a row or column are a stride apart; the last is moved back to end at the border,
    so none is padded. Where tiles overlap, their maps are averaged with weights that rise from a
    tile's edge as a squared sine over the overlap (a Tukey window) and sum to one.

    Args:
        size: (H, W) of a tile in pixels, multiples of 32; None takes the image whole.
        overlap: part of a tile's side that the next covers too, at least; in [0, 1).
        batch_size: tiles that the networks take at once in evaluation; changes maps by rounding
            alone.

    Raises:
        UserError: a value outside of these.
    """

    def __init__(
        self, size: Sequence[int] | None = None, overlap: float = 0.25, batch_size: int = 16
    ) -> None:
        if size is not None and not is_size(size):
            raise UserError(
                f"model.tiling.size={size}: must be [height, width] in pixels, multiples of 32 "
                "from 64 on; null takes images whole"
            )
        if not 0 <= overlap < 1:
            raise UserError(
                f"model.tiling.overlap={overlap}: must be 0 or more and below 1; it is a part of "
                "the tile's side, such as 0.25"
            )
        if batch_size < 1:
            raise UserError(f"model.tiling.batch_size={batch_size}: must be at least 1")
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.overlap, self.batch_size = overlap, batch_size

    def boxes(self, image_size: Sequence[int]) -> list[Box]:
        """Where the T tiles of an image of (H, W) lie, row by row.

        Raises:
            UserError: an image smaller than a tile.
        """
        height, width = image_size
        if self.size is None:
            return [(slice(0, height), slice(0, width))]
        tile_height, tile_width = self.size
        if height < tile_height or width < tile_width:
            raise UserError(
                f"model.tiling.size={list(self.size)}: larger than data.image_size="
                f"{[height, width]}; take smaller tiles or larger images"
            )
        return [
            (slice(top, top + tile_height), slice(left, left + tile_width))
            for top in starts(height, tile_height, self.overlap)
            for left in starts(width, tile_width, self.overlap)
        ]

    def split(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to their tiles (B T, C, h, w), image by image.

        Raises:
            UserError: images smaller than a tile.
        """
        tiles = [images[..., rows, columns] for rows, columns in self.boxes(images.shape[-2:])]
        return torch.stack(tiles, dim=1).flatten(0, 1)

    def blend(self, maps: Tensor, image_size: Sequence[int]) -> Tensor:
        """Maps of tiles (B T, h, w), in the order of `split`, to maps of images (B, H, W)."""
        height, width = image_size
        boxes, (tile_height, tile_width) = self.boxes(image_size), maps.shape[-2:]
        windows = [
            across.unsqueeze(1) * along
            for across in weights(height, tile_height, self.overlap).to(maps)
            for along in weights(width, tile_width, self.overlap).to(maps)
        ]
        by_tile = maps.unflatten(0, (-1, len(boxes)))
        blended = maps.new_zeros(by_tile.shape[0], height, width)
        for tile, ((rows, columns), window) in enumerate(zip(boxes, windows, strict=True)):
            blended[:, rows, columns] += by_tile[:, tile] * window
        return blended

    def map(self, images: Tensor, map_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Maps (B, H, W) of images (B, C, H, W), made tile by tile.

        Args:
            images: none smaller than a tile.
            map_of: maps (N, h, w) of at most ``batch_size`` tiles (N, C, h, w).
        """
        if self.size is None:
            return map_of(images)
        parts = self.split(images).split(self.batch_size)
        return self.blend(torch.cat([map_of(part) for part in parts]), images.shape[-2:])


def is_size(size: Any) -> bool:
    """Whether the networks can take images of this (H, W)."""
    return (
        isinstance(size, Sequence)
        and len(size) == 2
        and all(isinstance(side, int) and side >= 64 and side % 32 == 0 for side in size)
    )


def starts(length: int, size: int, overlap: float) -> list[int]:
    """First pixels of the tiles along a side of ``length`` pixels."""
    stride = max(1, math.floor(size * (1 - overlap)))
    return [*range(0, length - size, stride), length - size]


@cache
def weights(length: int, size: int, overlap: float) -> Tensor:
    """Weights (N, size) of the N tiles along a side; at each pixel of it they sum to one."""
    ramp = min(overlap, 0.5) * size
    from_edge = torch.arange(size, dtype=torch.float64) + 0.5
    from_edge = torch.minimum(from_edge, from_edge.flip(0))
    window = (from_edge / ramp).clamp(max=1) if ramp else torch.ones_like(from_edge)
    window = (window * torch.pi / 2).sin().square()
    first = starts(length, size, overlap)
    total = torch.zeros(length, dtype=torch.float64)
    for start in first:
        total[start : start + size] += window
    return torch.stack([window / total[start : start + size] for start in first]).float()
