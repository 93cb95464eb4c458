"""All test images of a run, small, with ground truth and anomaly map: ``<run>/gallery.zip``.

A ZIP archive (stored, not deflated) written atomically before the record:

================== ==============================================================================
``index.json``     ``version`` 1; ``size`` [H, W] of image and mask, ``map_size`` [H, W]; ``low,
                   high``: the map values of grey 0 and 255, one scale for the run's images, values
                   outside are clipped; ``threshold``: a map value for drawing, or null; ``images``:
                   ``[{row, path, mask}]``, ``row`` and ``path`` as in scores.csv, ``mask`` false
                   where there is no ground truth
``image/ROW.jpg``  RGB, at most 256 pixels on the longer side
``map/ROW.jpg``    grey anomaly map, at most 128 pixels on the longer side
``mask/ROW.png``   1 bit, of the image's size; only where a pixel is defective
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
    """Height and width of ``size`` scaled, in proportion, to a longer side of at most ``side``."""
    height, width = size[:2]
    shrink = min(1.0, side / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def write_gallery(
    run_dir: Path | str,
    images: Iterable[ScoredImage],
    low: float,
    high: float,
    threshold: float | None,
) -> Path:
    """Writes ``gallery.zip`` atomically; the images are taken one at a time.

    Args:
        run_dir: the run's folder.
        images: test images with ``row`` and ``path``, all of one size.
        low: the map value drawn as 0.
        high: the map value drawn as 255.
        threshold: the map value from which a pixel counts as found, None where undefined.

    Raises:
        ValueError: the images, masks or maps are not all of one size.
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


def has_gallery(run_dir: Path | str) -> bool:
    """Whether the run left a gallery."""
    return (Path(run_dir) / GALLERY).is_file()


class Gallery:
    """Reads a run's ``gallery.zip``; to be used as a context manager.

    Attributes:
        paths: the images, as in scores.csv, in the order written.
        low, high: the map values of grey 0 and 255.
        threshold: the map value from which a pixel counts as found, None where undefined.
        size, map_size: (H, W) of image and mask, and of the map.

    Raises:
        UserError: no such file, damaged, or of another version; also when an image is read.
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
        """The ground truth, bool (H, W); None if there is none; all false for a normal image."""
        row = self._row(path)
        if not self._images[path]["mask"]:
            return None
        name = f"mask/{row}.png"
        if name not in self._names:
            return np.zeros(self.size, dtype=bool)
        try:
            with Image.open(BytesIO(self._read(name)), formats=["PNG"]) as picture:
                return np.asarray(picture, dtype=bool)
        except OSError as error:
            raise self._unreadable(error) from error

    def _read_index(self) -> None:
        try:
            index = json.loads(self._read(_INDEX))
            version = index["version"]
            if version == VERSION:
                self.low, self.high = float(index["low"]), float(index["high"])
                self.threshold: float | None = index["threshold"]
                self.size, self.map_size = _size(index["size"]), _size(index["map_size"])
                self._images = {str(one["path"]): one for one in index["images"]}
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
            raise UserError(f"{self.path}: does not hold {path}; it was written with fewer images")
        return int(self._images[path]["row"])

    def _read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        # A damaged archive: any of zipfile's and zlib's errors, a name that is not there.
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: cannot be read as a gallery ({one_line(error)}); delete it")


def _size(value: Any) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)


def _add(archive: zipfile.ZipFile, scored: ScoredImage, index: dict[str, Any]) -> None:
    """Puts one image's files in, and its line into the index."""
    image, mask, anomaly_map = _small(scored.image), scored.mask, _small_map(scored.anomaly_map)
    sizes = {"size": [image.height, image.width], "map_size": list(anomaly_map.shape)}
    for name, size in sizes.items():
        index[name] = index[name] or size
        if index[name] != size:
            raise ValueError(f"{scored.path}: {name} {size}, before {index[name]}")
    if mask is not None and mask.shape != scored.image.shape[:2]:
        raise ValueError(f"{scored.path}: image {scored.image.shape}, mask {mask.shape}")
    grey = Image.fromarray(_to_grey(anomaly_map, index["low"], index["high"]))
    _put(archive, f"image/{scored.row}.jpg", _encoded(image, "JPEG"))
    _put(archive, f"map/{scored.row}.jpg", _encoded(grey, "JPEG"))
    if mask is not None and mask.any():
        _put(archive, f"mask/{scored.row}.png", _encoded(_small_mask(mask), "PNG"))
    index["images"].append({"row": scored.row, "path": scored.path, "mask": mask is not None})


def _small(image: np.ndarray) -> Image.Image:
    height, width = fit_within(image.shape, IMAGE_SIDE)
    return Image.fromarray(image).resize((width, height), Image.Resampling.BOX)


def _small_map(anomaly_map: np.ndarray) -> np.ndarray:
    """Means over areas, float32."""
    height, width = fit_within(anomaly_map.shape, MAP_SIDE)
    picture = Image.fromarray(anomaly_map.astype(np.float32, copy=False))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def _small_mask(mask: np.ndarray) -> Image.Image:
    """Defective where half of the area is; a defect too small for that is kept by any part."""
    height, width = fit_within(mask.shape, IMAGE_SIDE)
    share = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    levels = np.asarray(share)
    found = levels >= 0.5
    return Image.fromarray(found if found.any() else levels > 0)


def _to_grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map values to uint8."""
    span = high - low if high > low and math.isfinite(high - low) else 1.0
    share = np.nan_to_num((values - low) / span, nan=0.0)
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _encoded(picture: Image.Image, form: str) -> bytes:
    file = BytesIO()
    picture.save(file, form, quality=QUALITY)
    return file.getvalue()


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # ZipInfo's own date, the same for all: equal runs leave equal files.
    archive.writestr(zipfile.ZipInfo(name), content)
