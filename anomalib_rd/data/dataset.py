"""The torch datasets: images, or tiles of them, with masks and labels."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from anomalib_rd.data.image_cache import ImageCache
from anomalib_rd.data.images import read_pair
from anomalib_rd.data.mask_rules import AUTO
from anomalib_rd.data.sources.source import Sample


class AnomalyDataset(Dataset[dict[str, Any]]):
    """Decoded samples.

    Item ``i`` is ``{"index": i, "image": uint8 (3, H, W), "mask": bool (H, W), "label": 0 or 1}``.
    The mask is all false if ``samples[i].mask`` is None, and is missing without ``masks``.

    Args:
        samples: images and masks to read.
        image_size: (H, W) of image and mask.
        transform: torchvision v2 transform of the uint8 image, not of the mask: for training.
        cache: cache of decoded images; does not change the items. None decodes each time.
        mask_rule: how masks are read, one of `masks.MASK_RULES`.
        masks: whether to read the masks; training does not need them.
        seed: seed of the transform's random numbers.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: Sequence[int],
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        cache: ImageCache | None = None,
        mask_rule: str = AUTO,
        masks: bool = True,
        seed: int = 0,
    ) -> None:
        height, width = image_size
        self.samples = list(samples)
        self.image_size = (int(height), int(width))
        self.transform = transform
        self.cache, self.mask_rule, self.seed = cache, mask_rule, seed
        self.masks = masks
        self._last: tuple[int, torch.Tensor] | None = None  # index and image of the last tile

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """Read one sample by ``index`` or ``(index, epoch)``; without epoch, epoch 0.

        The transform's random numbers depend on seed, epoch and index alone, not on the worker or
        on earlier reads.

        Raises:
            UserError: an unreadable file, or a mask of another size than its image.
        """
        index, epoch = index_and_epoch(index)
        sample = self.samples[index]
        image, mask = self._read(sample.path, sample.mask if self.masks else None)
        if self.transform is not None:
            image = self._transform(image, epoch, index)
        item = {"index": index, "image": image, "label": sample.label}
        if self.masks:
            item["mask"] = torch.zeros(self.image_size, dtype=torch.bool) if mask is None else mask
        return item

    def tile(self, index: int, rows: slice, columns: slice, epoch: int = 0) -> dict[str, Any]:
        """The item ``index`` with one tile of its image, and without mask.

        Only these rows of a cached image are read. An image that is not cached is decoded, and
        kept in memory for its next tiles.

        Raises:
            UserError: an unreadable file.
        """
        sample, tile = self.samples[index], None
        if self.cache is not None and self.transform is None:
            tile = self.cache.read_tile(sample.path, self.image_size, rows, columns)
        if tile is None:
            if self._last is None or self._last[0] != index:
                self._last = index, self._read(sample.path, None)[0]
            image = self._last[1]
            if self.transform is not None:
                image = self._transform(image.clone(), epoch, index)
            # A copy: a view would keep the full image in memory, and a worker would send it.
            tile = image[..., rows, columns].clone(memory_format=torch.contiguous_format)
        return {"index": index, "image": tile, "label": sample.label}

    def _transform(self, image: torch.Tensor, epoch: int, index: int) -> torch.Tensor:
        assert self.transform is not None
        with seeded_random(self.seed, epoch, index):
            return self.transform(image)

    def _read(self, path: Path, mask: Path | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        read = read_pair if self.cache is None else self.cache.read
        return read(path, mask, self.image_size, self.mask_rule)


class TileDataset(Dataset[dict[str, Any]]):
    """The tiles of each image in turn, cut after its transform, as items without masks.

    ``boxes`` are the rows and columns of the tiles in each image.
    """

    def __init__(self, images: AnomalyDataset, boxes: Sequence[tuple[slice, slice]]) -> None:
        self.images, self.boxes = images, list(boxes)

    def __len__(self) -> int:
        return len(self.images) * len(self.boxes)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """Read one tile by ``index`` or ``(index, epoch)``, see `AnomalyDataset.tile`."""
        index, epoch = index_and_epoch(index)
        image, tile = divmod(index, len(self.boxes))
        return {**self.images.tile(image, *self.boxes[tile], epoch), "index": index}


def index_and_epoch(drawn: int | tuple[int, int]) -> tuple[int, int]:
    """``(index, epoch)`` of an item drawn by a sampler; epoch 0 for an index alone."""
    return drawn if isinstance(drawn, tuple) else (drawn, 0)


@contextmanager
def seeded_random(*seed: int) -> Iterator[None]:
    """Seed torch (on the CPU), NumPy and Python inside the block, then restore their states."""
    first, second, third = np.random.SeedSequence(seed).generate_state(3)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        # torch.manual_seed would seed the GPUs too.
        torch.default_generator.manual_seed(int(first))
        np.random.seed(second)
        random.seed(int(third))
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
