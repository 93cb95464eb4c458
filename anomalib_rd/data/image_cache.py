"""Reading images through the cache of decoded images on disk."""

import contextlib
import logging
from hashlib import sha256
from pathlib import Path

import PIL
import torch

from anomalib_rd.data.disk_cache import ArrayStore, open_image_store
from anomalib_rd.data.fingerprint import hash_content
from anomalib_rd.data.images import READING, read_pair
from anomalib_rd.data.mask_rules import AUTO

log = logging.getLogger(__name__)


class ImageCache:
    """`read_pair` with a cache on disk; the pixels are equal to the bit.

    The key is the content of the image and of its mask, the size, and how images are read. So a
    changed file never returns its old pixels, copies of a file share one entry, and a mask is
    stored only with an image that it fits. Runs, processes and data workers may share one cache.
    If it is not writable, one warning is logged and images are decoded each time. The default
    ``store`` is in the user's cache folder, or in the environment variable ``ANOMALIB_RD_CACHE``.
    """

    def __init__(self, store: ArrayStore | None = None) -> None:
        self.store = open_image_store() if store is None else store
        self._unwritable = torch.zeros(1, dtype=torch.bool)
        # Shared, so that only one worker warns about a full disk; without shared memory, all do.
        with contextlib.suppress(RuntimeError):
            self._unwritable.share_memory_()

    def read(
        self, path: Path, mask: Path | None, size: tuple[int, int], rule: str = AUTO
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Image (3, H, W) uint8 and mask (H, W) bool or None, of ``size`` (H, W).

        Raises:
            UserError: see `read_pair`.
        """
        key = _key(path, mask, size, rule)
        planes = self.store.get(key, (3 if mask is None else 4, *size)) if key else None
        if planes is not None:
            cached = torch.from_numpy(planes)
            return cached[:3], None if mask is None else cached[3].bool()
        image, decoded_mask = read_pair(path, mask, size, rule)
        # The file may have been replaced since it was hashed.
        if key and key == _key(path, mask, size, rule):
            self._put(key, image, decoded_mask)
        return image, decoded_mask

    def read_tile(
        self, path: Path, size: tuple[int, int], rows: slice, columns: slice
    ) -> torch.Tensor | None:
        """``[:, rows, columns]`` of the image that `read` returns; None if it is not cached."""
        key = _key(path, None, size, AUTO)
        planes = self.store.get_rows(key, (3, *size), rows) if key else None
        return None if planes is None else torch.from_numpy(planes[..., columns].copy())

    def _put(self, key: str, image: torch.Tensor, mask: torch.Tensor | None) -> None:
        if self._unwritable:
            return
        planes = image if mask is None else torch.cat([image, mask[None].to(torch.uint8)])
        try:
            self.store.put(key, planes.numpy())
        except OSError as error:
            # NumPy, because torch is so slow that another worker may warn in the meantime.
            warned = self._unwritable.numpy()
            if not warned[0]:
                warned[0] = True
                folder, reason = self.store.folder, error.strerror or error
                log.warning("cannot cache decoded images in %s: %s", folder, reason)


def _key(path: Path, mask: Path | None, size: tuple[int, int], rule: str) -> str | None:
    """Hash of all that determines the pixels; None if a file cannot be read."""
    try:
        contents = [hash_content(file) for file in (path, mask) if file is not None]
    except OSError:
        return None
    # Another version of Pillow may decode or resize to different values.
    parts = [READING, PIL.__version__, *map(str, size), *contents]
    if mask is not None:
        parts.append(rule)
    return sha256(" ".join(parts).encode()).hexdigest()
