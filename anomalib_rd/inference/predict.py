"""Files of `predict`: input images by path, folder or pattern; a table, heatmaps and maps."""

import csv
import glob
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from anomalib_rd.data.images import load_image
from anomalib_rd.data.sources.files import (
    IMAGE_EXTENSIONS,
    explain_no_images,
    has_image_extension,
    is_hidden,
    walk,
)
from anomalib_rd.data.sources.unused_files import describe_skipped
from anomalib_rd.errors import UserError
from anomalib_rd.inference.detector import Prediction
from anomalib_rd.reports.heatmaps import FOLDER as HEATMAPS
from anomalib_rd.reports.heatmaps import SMALLEST, heatmap_strip, save_png, with_small_parts
from anomalib_rd.results.files import (
    expand_home,
    printable,
    shorten_name,
    to_json_types,
    write_atomically,
    write_json,
)

log = logging.getLogger(__name__)

CSV, JSON, MAPS = "predictions.csv", "predictions.json", "maps"
COLUMNS = ["path", "score", "normalised", "verdict"]
# Files that identify a folder of a prediction, run, evaluation or report, and the names of drawn
# images in such a folder.
RECORDS = (
    *(CSV, JSON, "result.json", "failure.json", "evaluation.json", "running.json", "gallery.zip"),
    *("table.md", "summary.md", "checkpoints/last.ckpt"),
)
DRAWN_FOLDERS = (HEATMAPS, MAPS, "figures", "wandb")
DRAWN_FILES = ("heatmaps.png", "figure.png")
MapFormat = Literal["npy", "tiff"]


def find_images(arguments: Sequence[str]) -> dict[Path, Path]:
    """Find images by path, folder or pattern: path -> unique output name without suffix.

    A folder means all images in it and its subfolders, a pattern the images that it matches,
    anything else a file with any suffix. Output names include the subfolders. Images drawn by
    anomalib-rd are skipped, unless given as files.

    Raises:
        UserError: a folder or pattern without images.
    """
    names: dict[Path, Path] = {}
    used: set[Path] = set()
    for argument in arguments:
        for path, relative in _resolve(argument):
            if path in names:
                continue
            name, count = relative.with_suffix(""), 1
            # The same name in several folders, or with several suffixes.
            while name in used:
                count += 1
                name = relative.with_name(f"{relative.stem}_{count}")
            used.add(name)
            names[path] = name
    return names


def _resolve(argument: str) -> Iterable[tuple[Path, Path]]:
    """Images of one argument, each with its relative path."""
    path = expand_home(argument)
    if path.is_dir():
        files = walk(path)
        images = _without_drawn(argument, path, files.images)
        if not images:
            raise UserError(
                f"{argument}: no image in this folder{explain_no_images(path, recursive=True)}"
            )
        for kind in describe_skipped(files):
            log.warning("%s: %s", printable(argument), kind.text)
        return [(image, image.relative_to(path)) for image in images]
    if glob.has_magic(argument) and not path.exists():
        images = _without_drawn(argument, None, _match(path))
        if not images:
            suffixes = ", ".join(sorted(IMAGE_EXTENSIONS))
            raise UserError(f"{argument}: matches no image ({suffixes})")
        return [(image, Path(image.name)) for image in images]
    return [(path, Path(path.name))]


def _match(pattern: Path) -> list[Path]:
    """The images that a pattern matches, each once, outside of hidden folders."""
    # Path.glob takes no absolute patterns.
    paths = [Path(p) for p in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207
    typed, seen, images = set(pattern.parts), set(), []
    # Links can lead to the same folder several times, or to a parent folder.
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        if any(is_hidden(name) and name not in typed for name in path.parts):
            continue
        real = (os.path.realpath(path.parent), path.name)
        if has_image_extension(path) and path.is_file() and real not in seen:
            seen.add(real)
            images.append(path)
    return sorted(images)


def _without_drawn(argument: str, top: Path | None, images: list[Path]) -> list[Path]:
    """Exclude images drawn by predictions, runs and reports; logs their number."""

    @cache
    def has_record(folder: Path) -> bool:
        return any((folder / name).is_file() for name in RECORDS)

    @cache
    def is_drawn_folder(folder: Path) -> bool:
        if folder == folder.parent:
            return False
        if folder.name in DRAWN_FOLDERS and has_record(folder.parent):
            return True
        return folder != top and is_drawn_folder(folder.parent)

    def is_drawn(image: Path) -> bool:
        return is_drawn_folder(image.parent) or (
            image.name in DRAWN_FILES and has_record(image.parent)
        )

    kept = [image for image in images if not is_drawn(image)]
    if len(kept) < len(images):
        log.warning(
            "%s: skipped %d of %d images, which anomalib-rd has drawn (%s)",
            *(argument, len(images) - len(kept), len(images), next(filter(is_drawn, images))),
        )
    return kept


@dataclass(frozen=True)
class Output:
    """Writes the output files of each image.

    Attributes:
        folder: created if missing.
        heatmaps: whether to draw image, outline of the pixels above the threshold, and map.
        maps: format of saved maps: float32 ``.npy``, or float16 ``.tiff`` for MVTec's evaluation
            of LOCO and AD 2; None: not saved.
        original_size: whether heatmaps and maps have the size of the original image. Otherwise
            maps have the network's size, and heatmaps a similar one with the image's aspect ratio.
        scale: map values of the darkest and brightest colour, as in the run's heatmaps, if known.
    """

    folder: Path
    heatmaps: bool = True
    maps: MapFormat | None = None
    original_size: bool = False
    scale: tuple[float, float] | None = None

    def write(self, name: Path, path: Path, prediction: Prediction) -> None:
        """Write the files of one image, each atomically.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.heatmaps:
            file = _output_path(self.folder / HEATMAPS / name, ".png")
            # Read again: holding all queued images at their original size would need much memory.
            image = load_image(path) if self.original_size else Image.fromarray(prediction.image)
            size = prediction.size if self.original_size else heatmap_size(prediction)
            heatmap = draw_heatmap(prediction, image, size, path.name, self.scale)
            save_png(heatmap, file, {"path": path.as_posix()})
        if self.maps:
            values = prediction.full_map() if self.original_size else prediction.anomaly_map
            file = _output_path(self.folder / MAPS / name, f".{self.maps}")
            write_atomically(file, lambda stream: save_map(stream, values, self.maps))

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write ``predictions.json``, with exact paths even if they are not UTF-8."""
        write_json(self.folder / JSON, to_json_types(facts))


class Table:
    r"""``predictions.csv`` in UTF-8, written row by row.

    Written rows survive a kill or a full disk. Bytes of a path that are not UTF-8 are written as
    ``\udcXX``. The files of an earlier prediction in ``folder`` are replaced.

    Raises:
        OSError: the folder cannot be written; also in `add`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / CSV
        self.file = self.path.open("wb", buffering=0)
        (folder / JSON).unlink(missing_ok=True)
        self._write(COLUMNS)

    def add(self, row: dict[str, Any]) -> None:
        """Write one row of ``COLUMNS``."""
        self._write([row[name] for name in COLUMNS])

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, values: Sequence[Any]) -> None:
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        left, start = text.getvalue().encode(errors="backslashreplace"), self.file.tell()
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            self.file.truncate(start)  # no partial row
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def table_row(path: Path, prediction: Prediction) -> dict[str, Any]:
    """One row of the table."""
    return {
        "path": path.as_posix(),
        "score": prediction.score,
        "normalised": prediction.normalised,
        "verdict": prediction.verdict,
    }


def heatmap_size(prediction: Prediction) -> tuple[int, int]:
    """(H, W) with the image's aspect ratio and at least about as many pixels as the map."""
    (height, width), pixels = prediction.size, prediction.anomaly_map.size
    scale = math.sqrt(pixels / (height * width))
    scale = max(scale, SMALLEST / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def draw_heatmap(
    prediction: Prediction,
    image: Image.Image,
    size: tuple[int, int],
    name: str,
    scale: tuple[float, float] | None = None,
) -> Image.Image:
    """Draw image | outline of the pixels >= threshold | map.

    Args:
        prediction: of the image.
        image: RGB, of any size.
        size: (H, W) of each part.
        name: of the image, for its caption.
        scale: map values of the darkest and brightest colour; None: 0 and twice the threshold, or
            the map's range if there is no threshold.
    """
    height, width = size
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    heat = prediction.map_of_size(size)
    threshold = prediction.threshold
    top = 2 * threshold.pixel if threshold and threshold.pixel > 0 else None
    own = (
        (0.0, top)
        if top
        else (float(prediction.anomaly_map.min()), float(prediction.anomaly_map.max()))
    )
    low, high = scale or own
    outlined = None
    if threshold:
        level = threshold.pixel
        # Resizing lowers peaks; outline each of them nevertheless.
        outlined = with_small_parts(heat >= level, prediction.anomaly_map >= level)
    # The name comes last: a narrow image truncates the title.
    title = f"score {prediction.score:.3g}  {name}"
    outline = f"{prediction.verdict}, threshold {threshold.image:.3g}" if threshold else "threshold"
    return heatmap_strip(pixels, outlined, heat, low, high, title, outline)


def save_map(stream: Any, values: np.ndarray, kind: str | None) -> None:
    """Write a map (H, W) into an open file."""
    if kind == "npy":
        np.save(stream, values, allow_pickle=False)
    else:
        import tifffile

        tifffile.imwrite(stream, values.astype(np.float16))


def _output_path(path: Path, ending: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(shorten_name(path.name, ending))
