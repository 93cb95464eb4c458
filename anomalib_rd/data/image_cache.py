"""Decoded images for training: from disk, in memory that data workers share."""

import contextlib
import logging
from hashlib import sha256
from pathlib import Path

import PIL
import torch

from anomalib_rd.data.disk_cache import ArrayStore, open_image_store
from anomalib_rd.data.fingerprint import hash_content
from anomalib_rd.data.images import READING, read_pair
from anomalib_rd.data.masks import AUTO

log = logging.getLogger(__name__)


class ImageCache:
    """Reads what `read_pair` reads, the same to the bit, and keeps it for the next who asks.

    The key is the contents of the image and of its mask together, the size, and how images are
    read. So a file that changed never gives its old pixels, one that lies at two places is kept
    once, and a mask only with an image that it fits. Runs, processes and data loaders' workers
    may share one cache at any time. Where it cannot be written, a warning says so once, and
    images are decoded as without it.

    Args:
        store: where to keep them; None: in the user's cache folder, which the environment
            variable ``ANOMALIB_RD_CACHE`` moves.
    """

    def __init__(self, store: ArrayStore | None = None) -> None:
        self.store = open_image_store() if store is None else store
        self._unwritable = torch.zeros(1, dtype=torch.bool)
        # Of all the workers that find the disk full, one says so; without shared memory, each.
        with contextlib.suppress(RuntimeError):
            self._unwritable.share_memory_()

    def read(
        self, path: Path, mask: Path | None, size: tuple[int, int], rule: str = AUTO
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Image (3, H, W) uint8 and mask (H, W) bool or None, of ``size`` (H, W).

        ``rule`` is one of `mask_levels.MASK_RULES`.

        Raises:
            UserError: as `read_pair`.
        """
        key = _key(path, mask, size, rule)
        planes = self.store.get(key, (3 if mask is None else 4, *size)) if key else None
        if planes is not None:
            kept = torch.from_numpy(planes)
            return kept[:3], None if mask is None else kept[3].bool()
        image, decoded_mask = read_pair(path, mask, size, rule)
        # The file may have been replaced since it was hashed.
        if key and key == _key(path, mask, size, rule):
            self._keep(key, image, decoded_mask)
        return image, decoded_mask

    def read_tile(
        self, path: Path, size: tuple[int, int], rows: slice, columns: slice
    ) -> torch.Tensor | None:
        """Of the image that `read` gives, ``[:, rows, columns]``; None if it is not kept."""
        key = _key(path, None, size, AUTO)  # without a mask no rule counts
        planes = self.store.get_rows(key, (3, *size), rows) if key else None
        return None if planes is None else torch.from_numpy(planes[..., columns].copy())

    def _keep(self, key: str, image: torch.Tensor, mask: torch.Tensor | None) -> None:
        if self._unwritable:
            return
        planes = image if mask is None else torch.cat([image, mask[None].to(torch.uint8)])
        try:
            self.store.put(key, planes.numpy())
        except OSError as error:
            # Another worker may be here now. In numpy: torch takes long enough to be overtaken.
            told = self._unwritable.numpy()
            if not told[0]:
                told[0] = True
                folder, reason = self.store.folder, error.strerror or error
                log.warning(
                    "cannot keep decoded images in %s: %s; going on without", folder, reason
                )


def _key(path: Path, mask: Path | None, size: tuple[int, int], rule: str) -> str | None:
    """What the decoded pixels depend on; None if a file cannot be read: decoding says why."""
    try:
        contents = [hash_content(file) for file in (path, mask) if file is not None]
    except OSError:
        return None
    # Pillow too: another version may decode or resize to other values.
    parts = [READING, PIL.__version__, *map(str, size), *contents]
    if mask is not None:
        parts.append(rule)
    return sha256(" ".join(parts).encode()).hexdigest()
