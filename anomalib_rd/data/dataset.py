"""Samples as a torch dataset."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from anomalib_rd.data.cache import ImageCache
from anomalib_rd.data.images import read_pair
from anomalib_rd.data.mask_levels import AUTO
from anomalib_rd.data.source import Sample


class AnomalyDataset(Dataset[dict[str, Any]]):
    """Decoded samples.

    Item ``i`` is ``{"index": i, "image": uint8 (3, H, W), "mask": bool (H, W), "label": 0 or 1}``;
    the mask is all false where the sample has none: ask ``samples[i].mask`` which it is. Without
    ``masks`` it is absent.

    Args:
        samples: what to read.
        image_size: (H, W) of image and mask.
        transform: applied to the uint8 image alone, so for training (torchvision v2).
        mask_rule: how masks are read, see `anomalib_rd.data.mask_levels`.
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
    ) -> None:
        height, width = image_size
        self.samples = list(samples)
        self.image_size = (int(height), int(width))
        self.transform = transform
        self.cache, self.mask_rule = cache, mask_rule
        self.masks = masks
        self._last: tuple[int, torch.Tensor] | None = None  # read for a tile

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            UserError: an unreadable file, or a mask of another size than its image.
        """
        sample = self.samples[index]
        image, mask = self._read(sample.path, sample.mask if self.masks else None)
        if self.transform is not None:
            image = self.transform(image)
        item = {"index": index, "image": image, "label": sample.label}
        if self.masks:
            item["mask"] = torch.zeros(self.image_size, dtype=torch.bool) if mask is None else mask
        return item

    def tile(self, index: int, rows: slice, columns: slice) -> dict[str, Any]:
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
            whole = (
                self._last[1] if self.transform is None else self.transform(self._last[1].clone())
            )
            # A copy: a view would keep the whole image, and a worker would send it.
            image = whole[..., rows, columns].clone(memory_format=torch.contiguous_format)
        return {"index": index, "image": image, "label": sample.label}

    def _read(self, path: Path, mask: Path | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        read = read_pair if self.cache is None else self.cache.read
        return read(path, mask, self.image_size, self.mask_rule)
