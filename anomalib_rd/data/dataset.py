"""The torch dataset: images, or tiles of them, with masks and labels."""

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
from anomalib_rd.data.masks import AUTO
from anomalib_rd.data.sources.source import Sample


class AnomalyDataset(Dataset[dict[str, Any]]):
    """Decoded samples.

    Item ``i`` is ``{"index": i, "image": uint8 (3, H, W), "mask": bool (H, W), "label": 0 or 1}``;
    the mask is all false where the sample has none: ask ``samples[i].mask`` which it is. Without
    ``masks`` it is absent.

    Args:
        samples: what to read.
        image_size: (H, W) of image and mask.
        transform: applied to the uint8 image alone, so for training (torchvision v2).
        mask_rule: how masks are read, see `anomalib_rd.data.masks`.
        seed: of the transform's random numbers.
        cache: where decoded images are kept and looked for; None decodes anew. Same items.
        masks: whether anybody looks at the masks; of training images nobody does.
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
        self._last: tuple[int, torch.Tensor] | None = None  # read for a tile

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """Read one sample: ``index``, or ``(index, epoch)`` for the transform's random numbers.

        These depend on the seed, the epoch and the image alone: not on which process reads it, nor
        on what was read before.

        Raises:
            UserError: an unreadable file, or a mask of another size than its image.
        """
        index, epoch = index_and_epoch(index)
        sample = self.samples[index]
        image, mask = self._read(sample.path, sample.mask if self.masks else None)
        if self.transform is not None:
            image = self._transformed(image, epoch, index)
        item = {"index": index, "image": image, "label": sample.label}
        if self.masks:
            item["mask"] = torch.zeros(self.image_size, dtype=torch.bool) if mask is None else mask
        return item

    def tile(self, index: int, rows: slice, columns: slice, epoch: int = 0) -> dict[str, Any]:
        """As the item of that index with a part of its image, and without mask.

        Where decoded images are kept, only these rows are read; else the image is decoded, and
        remembered for the tiles that are asked for next.

        Raises:
            UserError: an unreadable file.
        """
        sample, image = self.samples[index], None
        if self.cache is not None and self.transform is None:
            image = self.cache.read_tile(sample.path, self.image_size, rows, columns)
        if image is None:
            if self._last is None or self._last[0] != index:
                self._last = index, self._read(sample.path, None)[0]
            whole = self._last[1]
            if self.transform is not None:
                whole = self._transformed(whole.clone(), epoch, index)
            # A copy: a view would keep the whole image, and a worker would send it.
            image = whole[..., rows, columns].clone(memory_format=torch.contiguous_format)
        return {"index": index, "image": image, "label": sample.label}

    def _transformed(self, image: torch.Tensor, epoch: int, index: int) -> torch.Tensor:
        assert self.transform is not None
        with random_numbers(self.seed, epoch, index):
            return self.transform(image)

    def _read(self, path: Path, mask: Path | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        read = read_pair if self.cache is None else self.cache.read
        return read(path, mask, self.image_size, self.mask_rule)


def index_and_epoch(drawn: int | tuple[int, int]) -> tuple[int, int]:
    """What a sampler has drawn: ``(index, epoch)``, or the index alone, which is of epoch 0."""
    return drawn if isinstance(drawn, tuple) else (drawn, 0)


@contextmanager
def random_numbers(*seed: int) -> Iterator[None]:
    """Random numbers of torch (on the CPU), NumPy and Python by ``seed`` while the block lasts.

    Afterwards they go on as if nothing had been drawn.
    """
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


class TileDataset(Dataset[dict[str, Any]]):
    """The T tiles of every image, each an item as of `AnomalyDataset` without mask, image by image.

    Args:
        images: to be cut, after their transform.
        boxes: rows and columns of the T tiles in each image.
    """

    def __init__(self, images: AnomalyDataset, boxes: Sequence[tuple[slice, slice]]) -> None:
        self.images, self.boxes = images, list(boxes)

    def __len__(self) -> int:
        return len(self.images) * len(self.boxes)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """Read one tile, ``index`` or of ``(index, epoch)``.

        Raises:
            UserError: an unreadable file.
        """
        index, epoch = index_and_epoch(index)
        image, tile = divmod(index, len(self.boxes))
        return {**self.images.tile(image, *self.boxes[tile], epoch), "index": index}
