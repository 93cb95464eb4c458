"""All test images of a run, downscaled, with mask and anomaly map: ``<run>/gallery.zip``.

A ZIP archive, uncompressed, written atomically before the record:

================== ==============================================================================
``index.json``     ``version`` 1; ``size`` [H, W] of image and mask, ``map_size`` [H, W]; ``low,
                   high``: map values of grey 0 and 255, the same for all images, values outside
                   are clipped; ``threshold``: of map values, for drawing, or null; ``images``:
                   ``[{row, path, mask}]``, ``row`` and ``path`` as in scores.csv, ``mask`` false
                   if there is no ground truth
``image/ROW.jpg``  RGB, at most 256 pixels on the longer side
``map/ROW.jpg``    grey anomaly map, at most 128 pixels on the longer side
``mask/ROW.png``   1 bit, of the image's size; only if a pixel is defective
================== ==============================================================================
"""

import json
import math
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line, to_json_types, write_atomically
from anomalib_rd.results.scored_image import ScoredImage

GALLERY = "gallery.zip"
VERSION = 1
IMAGE_SIDE, MAP_SIDE = 256, 128  # pixels
QUALITY = 85
_INDEX = "index.json"


def fit_within(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width of ``size``, downscaled to a longer side of at most ``side``."""
    height, width = size[:2]
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def write_gallery(
    run_dir: Path | str,
    images: Iterable[ScoredImage],
    low: float,
    high: float,
    threshold: float | None,
) -> Path:
    """Write ``gallery.zip`` atomically, with one image in memory at a time.

    The images have the same size, ``row`` and ``path``. ``low`` and ``high`` are the map values of
    grey 0 and 255, ``threshold`` is of map values, None if undefined.

    Raises:
        ValueError: images, masks or maps differ in size.
    """
    index: dict[str, Any] = {"version": VERSION, "size": None, "map_size": None}
    index |= {"low": low, "high": high, "threshold": threshold, "images": []}

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for image in images:
                _add(archive, image, index)
            _put(archive, _INDEX, json.dumps(to_json_types(index)).encode())

    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return write_atomically(folder / GALLERY, write)


def _add(archive: zipfile.ZipFile, scored: ScoredImage, index: dict[str, Any]) -> None:
    mask = scored.mask
    height, width = fit_within(scored.image.shape, IMAGE_SIDE)
    image = Image.fromarray(scored.image).resize((width, height), Image.Resampling.BOX)
    anomaly_map = _area_mean(scored.anomaly_map, MAP_SIDE)
    for name, size in {"size": [height, width], "map_size": list(anomaly_map.shape)}.items():
        index[name] = index[name] or size
        if index[name] != size:
            raise ValueError(f"{scored.path}: {name} {size}, before {index[name]}")
    if mask is not None and mask.shape != scored.image.shape[:2]:
        raise ValueError(f"{scored.path}: image {scored.image.shape}, mask {mask.shape}")
    grey = Image.fromarray(_to_grey(anomaly_map, index["low"], index["high"]))
    _put(archive, f"image/{scored.row}.jpg", _encode(image, "JPEG"))
    _put(archive, f"map/{scored.row}.jpg", _encode(grey, "JPEG"))
    if mask is not None and mask.any():
        fraction = _area_mean(mask, IMAGE_SIDE)
        # Defective if half of the area is defective; if none is, any defective area counts.
        small = fraction >= 0.5
        small = small if small.any() else fraction > 0
        _put(archive, f"mask/{scored.row}.png", _encode(Image.fromarray(small), "PNG"))
    index["images"].append({"row": scored.row, "path": scored.path, "mask": mask is not None})


def _area_mean(values: np.ndarray, side: int) -> np.ndarray:
    height, width = fit_within(values.shape, side)
    image = Image.fromarray(values.astype(np.float32, copy=False))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def _to_grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    span = high - low if high > low and math.isfinite(high - low) else 1.0
    scaled = np.nan_to_num((values - low) / span, nan=0.0)
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _encode(image: Image.Image, file_format: str) -> bytes:
    file = BytesIO()
    image.save(file, file_format, quality=QUALITY)
    return file.getvalue()


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # ZipInfo has a constant default date: equal runs write equal files.
    archive.writestr(zipfile.ZipInfo(name), content)


def has_gallery(run_dir: Path | str) -> bool:
    """Whether the run has a gallery."""
    return (Path(run_dir) / GALLERY).is_file()


class Gallery:
    """Reader of a run's ``gallery.zip``, a context manager.

    Attributes:
        paths: paths of the images, as in scores.csv, in the order of writing.
        low, high: map values of grey 0 and 255.
        threshold: threshold of map values, None if undefined.
        size, map_size: (H, W) of image and mask, and of the map.

    Raises:
        UserError: the file is missing, damaged, or of another version; also when an image is read.
    """

    def __init__(self, run_dir: Path | str) -> None:
        self.path = Path(run_dir) / GALLERY
        try:
            self._archive = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise self._unreadable(error) from error
        try:
            self._read_index()
        except BaseException:
            self._archive.close()
            raise

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()

    def image(self, path: str) -> bytes:
        """The image as JPEG."""
        return self._read(f"image/{self._row(path)}.jpg")

    def map(self, path: str) -> bytes:
        """The anomaly map as grey JPEG: 0 is ``low``, 255 is ``high``."""
        return self._read(f"map/{self._row(path)}.jpg")

    def mask(self, path: str) -> np.ndarray | None:
        """The ground truth, bool (H, W), all false for a normal image; None if there is none."""
        row = self._row(path)
        if not self._images[path]["mask"]:
            return None
        name = f"mask/{row}.png"
        if name not in self._names:
            return np.zeros(self.size, dtype=bool)
        try:
            with Image.open(BytesIO(self._read(name)), formats=["PNG"]) as image:
                return np.asarray(image, dtype=bool)
        except OSError as error:
            raise self._unreadable(error) from error

    def _read_index(self) -> None:
        try:
            index = json.loads(self._read(_INDEX))
            version = index["version"]
            if version == VERSION:
                self.low, self.high = float(index["low"]), float(index["high"])
                self.threshold: float | None = index["threshold"]
                height, width = map(int, index["size"])
                map_height, map_width = map(int, index["map_size"])
                self.size, self.map_size = (height, width), (map_height, map_width)
                self._images = {str(entry["path"]): entry for entry in index["images"]}
                self.paths = list(self._images)
                self._names = set(self._archive.namelist())
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._unreadable(error) from error
        if version != VERSION:
            raise UserError(
                f"{self.path}: version is {version!r}, this version reads {VERSION}; "
                "use the anomalib-rd that wrote it, or delete it"
            )

    def _row(self, path: str) -> int:
        if path not in self._images:
            raise UserError(f"{self.path}: does not contain {path}; it was limited to fewer images")
        return int(self._images[path]["row"])

    def _read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        # zipfile and zlib raise many kinds of errors for a damaged archive.
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: cannot be read as a gallery ({one_line(error)}); delete it")
