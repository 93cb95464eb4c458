"""Decoded images on disk, shared by all runs of a machine."""

import contextlib
import math
import os
import time
import uuid
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from platformdirs import user_cache_dir

ENTRY, PART = ".u8", ".part"  # a complete entry; one that is being written
CHECKSUM_BYTES = 4  # of CRC-32, after the values
DAY = 86400  # seconds


def cache_folder() -> Path:
    """``ANOMALIB_RD_CACHE``, else the platform's cache folder for this program."""
    return Path(os.environ.get("ANOMALIB_RD_CACHE") or user_cache_dir("anomalib_rd")).expanduser()


def open_image_store() -> "ArrayStore":
    """The store of decoded images in the cache folder."""
    return ArrayStore(cache_folder() / "decoded-images")


class ArrayStore:
    """A folder of uint8 arrays by key, each a file of the values and their CRC-32.

    There are no locks. An entry is written under another name and renamed when complete, so
    readers see a complete entry or none; the last of several writers wins. A truncated or altered
    file fails its check and counts as missing. The folder is created with the first entry.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: dict[str, tuple[int, ...]] = {}

    def get(self, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The array of this ``shape``; None if it is missing or damaged."""
        try:
            content = np.fromfile(self._entry(key), np.uint8)
        except OSError:
            return None
        values, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
        if values.size != math.prod(shape) or checksum.tobytes() != _checksum(values):
            return None
        return values.reshape(shape)

    def get_rows(self, key: str, shape: tuple[int, int, int], rows: slice) -> np.ndarray | None:
        """``[:, rows]`` of the array that `get` returns, without reading the other rows.

        The file is read completely and checked the first time and whenever it has changed.
        """
        path = self._entry(key)
        planes, height, width = shape
        start, stop, _ = rows.indices(height)
        try:
            state = path.stat()
            version = (state.st_ino, state.st_size, state.st_mtime_ns)
            if self._checked.get(key) != version:
                array = self.get(key, shape)
                if array is None:
                    return None
                self._checked[key] = version
                return array[:, rows]
            part = np.empty((planes, stop - start, width), np.uint8)
            with path.open("rb", buffering=0) as file:
                for plane, values in enumerate(part):
                    file.seek((plane * height + start) * width)
                    if file.readinto(values.data) != values.size:
                        return None
            return part
        except OSError:
            return None

    def put(self, key: str, values: np.ndarray) -> None:
        """Store uint8 ``values``, replacing the entry of ``key``.

        Raises:
            OSError: no space, or no permission to write.
        """
        values = np.ascontiguousarray(values)
        self.folder.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(self.folder)
        part = self.folder / f"{key}.{uuid.uuid4().hex}{PART}"
        # Another process may clear the store at this moment; then the entry is lost.
        with contextlib.suppress(FileNotFoundError):
            try:
                with part.open("xb") as file:
                    file.write(values.data)
                    file.write(_checksum(values))
                part.replace(self._entry(key))
            finally:
                part.unlink(missing_ok=True)

    def usage(self) -> tuple[int, int]:
        """Number of entries, and their bytes."""
        sizes = []
        for path in self.folder.glob(f"*{ENTRY}"):
            with contextlib.suppress(FileNotFoundError):  # cleared by another process
                sizes.append(path.stat().st_size)
        return len(sizes), sum(sizes)

    def clear(self) -> tuple[int, int]:
        """Remove all entries and the parts of killed processes, and no other files.

        Returns:
            Number of entries removed, and their bytes.

        Raises:
            OSError: no permission.
        """
        usage = self.usage()
        for path in (*self.folder.glob(f"*{PART}"), *self.folder.glob(f"*{ENTRY}")):
            path.unlink(missing_ok=True)
        return usage

    def _entry(self, key: str) -> Path:
        return self.folder / f"{key}{ENTRY}"


def _checksum(values: np.ndarray) -> bytes:
    return zlib.crc32(values.data).to_bytes(CHECKSUM_BYTES, "little")


@cache
def _remove_stale_parts(folder: Path) -> None:
    """Remove parts over a day old, of processes that were killed; runs once per process."""
    for part in folder.glob(f"*{PART}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > DAY:
                part.unlink()
