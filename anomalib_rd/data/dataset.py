"""Samples as a torch dataset."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from anomalib_rd.data.cache import ImageCache
from anomalib_rd.data.images import read_pair
from anomalib_rd.data.source import Sample


class AnomalyDataset(Dataset[dict[str, Any]]):
    """Decoded samples.

    Item ``i`` is ``{"index": i, "image": uint8 (3, H, W), "mask": bool (H, W), "label": 0 or 1}``;
    the mask is all false where the sample has none: ask ``samples[i].mask`` which it is.

    Args:
        samples: what to read.
        image_size: (H, W) of image and mask.
        transform: applied to the uint8 image alone, so for training (torchvision v2).
        cache: where decoded images are kept and looked for; None decodes anew. Same items.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: Sequence[int],
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        height, width = image_size
        self.samples = list(samples)
        self.image_size = (int(height), int(width))
        self.transform = transform
        self.cache = cache

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            UserError: an unreadable file, or a mask of another size than its image.
        """
        sample = self.samples[index]
        read = read_pair if self.cache is None else self.cache.read
        image, mask = read(sample.path, sample.mask, self.image_size)
        if mask is None:
            mask = torch.zeros(self.image_size, dtype=torch.bool)
        if self.transform is not None:
            image = self.transform(image)
        return {"index": index, "image": image, "mask": mask, "label": sample.label}
