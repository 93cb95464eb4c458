"""Tiles of large images: their positions, and seamless blending of their maps."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from anomalib_rd.errors import UserError

Box = tuple[slice, slice]
"""Rows and columns of a tile in its image."""


class Tiling:
    """Overlapping tiles of one size that cover an image.

    Tiles start at multiples of the stride; the last of a row or column ends at the border, so
    that no tile is padded. Overlapping maps are averaged with weights that sum to one and rise
    from a tile's edge over the overlap as a squared sine (a Tukey window).

    Args:
        size: (H, W) of a tile in pixels, multiples of 32; None disables tiling.
        overlap: minimal share of a tile's side that overlaps with its neighbour, in [0, 1).
        batch_size: tiles per batch in evaluation, affects maps only by rounding; None: all.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        size: Sequence[int] | None = None,
        overlap: float = 0.25,
        batch_size: int | None = 16,
    ) -> None:
        if size is not None and not (
            isinstance(size, Sequence)
            and len(size) == 2
            and all(isinstance(side, int) and side >= 64 and side % 32 == 0 for side in size)
        ):
            raise ValueError(
                f"size={size}: must be [height, width] in pixels, multiples of 32 and at least 64, "
                "or null for no tiles"
            )
        if not 0 <= overlap < 1:
            raise ValueError(
                f"overlap={overlap}: must be a share of the tile's side in [0, 1), such as 0.25"
            )
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.overlap, self.batch_size = overlap, batch_size

    def boxes(self, image_size: Sequence[int]) -> list[Box]:
        """Positions of the T tiles of an image (H, W), row by row.

        Raises:
            UserError: an image smaller than a tile.
        """
        height, width = image_size
        tile_height, tile_width = self.size or (height, width)
        if height < tile_height or width < tile_width:
            raise UserError(
                f"model.tiling.size={[tile_height, tile_width]}: exceeds data.image_size="
                f"{[height, width]}; choose smaller tiles or larger images"
            )
        return [
            (slice(top, top + tile_height), slice(left, left + tile_width))
            for top in tile_starts(height, tile_height, self.overlap)
            for left in tile_starts(width, tile_width, self.overlap)
        ]

    def split(self, images: Tensor) -> Tensor:
        """Split images (B, C, H, W) into tiles (B T, C, h, w), image by image.

        Raises:
            UserError: images smaller than a tile.
        """
        tiles = [images[..., rows, columns] for rows, columns in self.boxes(images.shape[-2:])]
        return torch.stack(tiles, dim=1).flatten(0, 1)

    def blend(self, maps: Tensor, image_size: Sequence[int]) -> Tensor:
        """Blend maps of tiles (B T, h, w), in the order of `split`, to maps of images (B, H, W)."""
        height, width = image_size
        boxes, (tile_height, tile_width) = self.boxes(image_size), maps.shape[-2:]
        windows = [
            vertical.unsqueeze(1) * horizontal
            for vertical in blend_weights(height, tile_height, self.overlap).to(maps)
            for horizontal in blend_weights(width, tile_width, self.overlap).to(maps)
        ]
        by_tile = maps.unflatten(0, (-1, len(boxes)))
        blended = maps.new_zeros(by_tile.shape[0], height, width)
        for tile, ((rows, columns), window) in enumerate(zip(boxes, windows, strict=True)):
            blended[:, rows, columns] += by_tile[:, tile] * window
        return blended

    def map(self, images: Tensor, map_tiles: Callable[[Tensor], Tensor]) -> Tensor:
        """Maps (B, H, W) of images (B, C, H, W), computed tile by tile.

        ``map_tiles`` returns the maps (N, h, w) of at most ``batch_size`` tiles (N, C, h, w).
        """
        if self.size is None:
            return map_tiles(images)
        tiles = self.split(images)
        if self.batch_size is None:
            maps = map_tiles(tiles)
        else:
            maps = torch.cat([map_tiles(batch) for batch in tiles.split(self.batch_size)])
        return self.blend(maps, images.shape[-2:])


def tile_starts(length: int, size: int, overlap: float) -> list[int]:
    """First pixels of the tiles along a side of ``length`` pixels."""
    stride = max(1, math.floor(size * (1 - overlap)))
    return [*range(0, length - size, stride), length - size]


@cache
def blend_weights(length: int, size: int, overlap: float) -> Tensor:
    """Weights (N, size) of the N tiles along a side, which sum to one at every pixel."""
    ramp = min(overlap, 0.5) * size
    from_edge = torch.arange(size, dtype=torch.float64) + 0.5
    from_edge = torch.minimum(from_edge, from_edge.flip(0))
    window = (from_edge / ramp).clamp(max=1) if ramp else torch.ones_like(from_edge)
    window = (window * torch.pi / 2).sin().square()
    starts = tile_starts(length, size, overlap)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += window
    return torch.stack([window / total[start : start + size] for start in starts]).float()
