"""Tiles of images in the images' place."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from anomalib_rd.data.dataset import AnomalyDataset, index_and_epoch


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
