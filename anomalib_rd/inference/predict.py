"""What `predict` reads and leaves: images by path, folder or pattern; a table, heatmaps, maps."""

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
from anomalib_rd.data.sources.unused import describe_skipped
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
# By these files a folder is known to be of a prediction, run, evaluation or report, and in these
# folders and files beside them lies what was drawn there.
RECORDS = (
    *(CSV, JSON, "result.json", "failure.json", "evaluation.json", "running.json", "gallery.zip"),
    *("table.md", "summary.md", "checkpoints/last.ckpt"),
)
DRAWN_FOLDERS = (HEATMAPS, MAPS, "figures", "wandb")
DRAWN_FILES = ("heatmaps.png", "figure.png")
MapFormat = Literal["npy", "tiff"]


def find_images(words: Sequence[str]) -> dict[Path, Path]:
    """The images that are meant, each once, with the name (without ending) of what they leave.

    A folder means all images in it and below, a pattern the images that it matches, any other
    word a file, whatever its ending. Below a folder its own folders are kept in the names.

    Pictures that anomalib-rd has drawn are left out, unless they are named one by one.

    Raises:
        UserError: a folder or pattern without images.
    """
    found: dict[Path, Path] = {}
    taken: set[Path] = set()
    for word in words:
        for path, inside in _meant(word):
            if path in found:
                continue
            name, count = inside.with_suffix(""), 1
            # Images of one name: in several folders, or with several endings.
            while name in taken:
                count += 1
                name = inside.with_name(f"{inside.stem}_{count}")
            taken.add(name)
            found[path] = name
    return found


def endings() -> str:
    """What images end in."""
    return ", ".join(sorted(IMAGE_EXTENSIONS))


def _meant(word: str) -> Iterable[tuple[Path, Path]]:
    path = expand_home(word)
    if path.is_dir():
        found = walk(path)
        images = _not_ours(word, path, found.images)
        if not images:
            raise UserError(
                f"{word}: no image in this folder{explain_no_images(path, recursive=True)}"
            )
        for kind in describe_skipped(found):
            log.warning("%s: %s", printable(word), kind.text)
        return [(image, image.relative_to(path)) for image in images]
    if glob.has_magic(word) and not path.exists():
        images = _not_ours(word, None, _matched(path))
        if not images:
            raise UserError(f"{word}: matches no image; {endings()} are")
        return [(image, Path(image.name)) for image in images]
    return [(path, Path(path.name))]


def _matched(pattern: Path) -> list[Path]:
    """The images that a pattern matches, each once, without those in hidden folders."""
    # Path.glob takes no absolute patterns.
    paths = [Path(p) for p in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207
    typed, seen, images = set(pattern.parts), set(), []
    # A folder may be reached by a link too, and a link may lead to a folder that it lies in.
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        if any(is_hidden(name) and name not in typed for name in path.parts):
            continue
        place = (os.path.realpath(path.parent), path.name)
        if has_image_extension(path) and path.is_file() and place not in seen:
            seen.add(place)
            images.append(path)
    return sorted(images)


def _not_ours(word: str, top: Path | None, images: list[Path]) -> list[Path]:
    """The images less the pictures of earlier predictions, runs and reports; says how many."""

    @cache
    def has_record(folder: Path) -> bool:
        return any((folder / name).is_file() for name in RECORDS)

    @cache
    def drawn_there(folder: Path) -> bool:
        if folder == folder.parent:
            return False
        if folder.name in DRAWN_FOLDERS and has_record(folder.parent):
            return True
        return folder != top and drawn_there(folder.parent)

    def is_ours(image: Path) -> bool:
        beside_record = image.name in DRAWN_FILES and has_record(image.parent)
        return beside_record or drawn_there(image.parent)

    kept = [image for image in images if not is_ours(image)]
    if len(kept) < len(images):
        first = next(image for image in images if is_ours(image))
        log.warning(
            "%s: %d of %d pictures are left out: anomalib-rd has drawn them (%s)",
            *(word, len(images) - len(kept), len(images), first),
        )
    return kept


@dataclass(frozen=True)
class Output:
    """Where and what to write of each image.

    Attributes:
        folder: made where it does not exist.
        heatmaps: whether to draw image, outline of the pixels above the threshold, and map.
        maps: how to keep maps: float32 ``.npy``, or 16-bit float ``.tiff``, as MVTec's evaluation
            of LOCO and AD 2 reads it; None for not.
        original_size: whether both are of the image's own size. Else the maps are of the network's,
            and the heatmaps about as large, in the image's proportions.
        scale: map values of the darkest and brightest colour, as the run's heatmaps have them; None
            where a run of an older version kept none.
    """

    folder: Path
    heatmaps: bool = True
    maps: MapFormat | None = None
    original_size: bool = False
    scale: tuple[float, float] | None = None

    def write(self, name: Path, path: Path, found: Prediction) -> None:
        """Write the pictures of one image, each atomically.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.heatmaps:
            file = _place(self.folder / HEATMAPS / name, ".png")
            # Read again: to keep all that wait at their own size would take much memory.
            image = load_image(path) if self.original_size else Image.fromarray(found.image)
            size = found.size if self.original_size else drawn_size(found)
            drawn = picture(found, image, size, path.name, self.scale)
            save_png(drawn, file, {"path": path.as_posix()})
        if self.maps:
            values = found.full_map() if self.original_size else found.anomaly_map
            file = _place(self.folder / MAPS / name, f".{self.maps}")
            write_atomically(file, lambda stream: save_map(stream, values, self.maps))

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write ``predictions.json``; its paths are exact, also where they are not UTF-8."""
        write_json(self.folder / JSON, to_json_types(facts))


class Table:
    r"""``predictions.csv`` in UTF-8, kept up to date: a row is in the file once it is added.

    Whatever ends the process later, even a kill or a full disk, the rows added before stay. Bytes
    of a path that are not UTF-8 are written as ``\udcXX``.

    Args:
        folder: of the predictions; the table and facts of an earlier prediction are replaced.

    Raises:
        OSError: the folder cannot be written; here and in `add`.
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
            self.file.truncate(start)  # no half of a row
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def row(path: Path, found: Prediction) -> dict[str, Any]:
    """One line of the table."""
    return {
        "path": path.as_posix(),
        "score": found.score,
        "normalised": found.normalised,
        "verdict": found.verdict,
    }


def drawn_size(found: Prediction) -> tuple[int, int]:
    """(H, W) of the image's proportions with about as many pixels as the network's, or more."""
    (height, width), pixels = found.size, found.anomaly_map.size
    scale = math.sqrt(pixels / (height * width))
    scale = max(scale, SMALLEST / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def picture(
    found: Prediction,
    image: Image.Image,
    size: tuple[int, int],
    name: str,
    scale: tuple[float, float] | None = None,
) -> Image.Image:
    """Image | outline of the pixels at the threshold or above | map.

    Without a scale the colours go from 0 to twice the threshold; without both over the image's own
    range.

    Args:
        found: what is drawn.
        image: RGB, of any size.
        size: (H, W) of each part.
        name: of the image, for its caption.
        scale: map values of the darkest and brightest colour.
    """
    height, width = size
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    heat = found.map_of_size(size)
    threshold = found.threshold
    top = 2 * threshold.pixel if threshold and threshold.pixel > 0 else None
    own = (0.0, top) if top else (float(found.anomaly_map.min()), float(found.anomaly_map.max()))
    low, high = scale or own
    outlined = None
    if threshold:
        level = threshold.pixel
        # Peaks are lower at other sizes, and each has an outline.
        outlined = with_small_parts(heat >= level, found.anomaly_map >= level)
    # A long name is what a narrow picture may cut off.
    title = f"score {found.score:.3g}  {name}"
    outline = f"{found.verdict}, threshold {threshold.image:.3g}" if threshold else "threshold"
    return heatmap_strip(pixels, outlined, heat, low, high, title, outline)


def save_map(stream: Any, values: np.ndarray, kind: str | None) -> None:
    """Write a map (H, W) into an open file."""
    if kind == "npy":
        np.save(stream, values, allow_pickle=False)
    else:
        import tifffile

        tifffile.imwrite(stream, values.astype(np.float16))


def _place(path: Path, ending: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(shorten_name(path.name, ending))
