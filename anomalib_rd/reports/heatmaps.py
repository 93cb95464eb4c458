"""Heatmaps of test images: image | ground truth | anomaly map, as PNG, without a display."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError
from scipy import ndimage

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line, printable, shorten_name, write_atomically
from anomalib_rd.results.record import read_record
from anomalib_rd.results.scored_image import ScoredImage

log = logging.getLogger(__name__)

FOLDER = "heatmaps"
GOOD = "good"
COLORMAP = "inferno"  # even steps of lightness: reads the same for the colour-blind and in print
CONTOUR = (0, 229, 255)  # the one hue that neither inferno nor most products have
OPACITY = 0.65
CAPTION, GAP, SMALLEST = 22, 4, 192  # pixels
INK, PAPER = (30, 30, 30), (255, 255, 255)


def choose_examples(scores: pd.DataFrame, n: int) -> list[int]:
    """Positions of at most ``n`` rows, evenly over the defect types and good, always the same ones.

    Types take turns (a defect, good, then the other defects by name) until ``n`` are given
    out; within a type the images are evenly spaced in the order of their paths, so that
    neither the best nor the worst are picked.

    Args:
        scores: rows with ``path`` and ``defect``, as in scores.csv.
        n: how many at most.

    Returns:
        Positions of the chosen rows, ascending.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row in np.argsort(scores["path"].to_numpy(dtype=str), kind="stable"):
        groups[str(scores["defect"].iloc[row])].append(int(row))
    types = sorted(set(groups) - {GOOD})
    if GOOD in groups:
        types.insert(min(1, len(types)), GOOD)
    counts = dict.fromkeys(types, 0)
    left = min(n, len(scores))
    while left > 0:
        for name in types:
            if left > 0 and counts[name] < len(groups[name]):
                counts[name] += 1
                left -= 1
    return sorted(
        groups[name][int((turn + 0.5) * len(groups[name]) / count)]
        for name, count in counts.items()
        for turn in range(count)
    )


def write_heatmaps(
    run_dir: Path | str,
    examples: Iterable[ScoredImage],
    vmin: float | None = None,
    vmax: float | None = None,
) -> list[Path]:
    """Writes ``heatmaps/<defect>_<stem>.png`` for each example, each atomically.

    One that cannot be drawn or written gets a warning and costs the others nothing.

    Args:
        run_dir: the run's folder.
        examples: what to draw.
        vmin: anomaly value of the darkest colour; the least of the examples' if None.
        vmax: anomaly value of the brightest colour; the greatest of the examples' if None.

    Returns:
        The paths of the files that were written, in the examples' order.
    """
    examples = list(examples)
    # One scale for all: a good image shall not look as hot as a defect.
    low = min((float(np.nanmin(e.anomaly_map)) for e in examples), default=0.0)
    high = max((float(np.nanmax(e.anomaly_map)) for e in examples), default=1.0)
    vmin, vmax = low if vmin is None else vmin, high if vmax is None else vmax
    folder = Path(run_dir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for example in examples:
        try:
            stem = PurePosixPath(example.path).stem
            title = f"{example.defect} {stem}  score {example.score:.3g}"
            mask = example.mask
            if mask is None and example.defect == GOOD:
                mask = np.zeros(example.anomaly_map.shape, dtype=bool)
            strip = heatmap_strip(example.image, mask, example.anomaly_map, vmin, vmax, title)
            name = f"{example.defect}_{stem}".replace("/", "_")
            path = folder / shorten_name(name, ".png")
            if path in written:  # two images of one name and other ending, or in subfolders
                path = folder / shorten_name(f"{name}_{len(written)}", ".png")
            caption = title if mask is not None else f"{title}, no ground truth"
            text = {"path": example.path, "defect": example.defect, "caption": caption}
            written.append(save_png(strip, path, text))
        except Exception as error:
            log.warning("%s: no heatmap (%s)", example.path, one_line(error))
    return written


def heatmap_strip(
    image: np.ndarray,
    mask: np.ndarray | None,
    anomaly_map: np.ndarray,
    vmin: float,
    vmax: float,
    title: str,
    contour: str = "ground truth",
) -> Image.Image:
    """Image | contour of the mask on the image | anomaly map over the image, under captions.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W), or None where there is none.
        anomaly_map: float (H, W).
        vmin: anomaly value of the darkest colour.
        vmax: anomaly value of the brightest colour.
        title: the caption of the first panel.
        contour: what the mask is, the caption of the second.

    Returns:
        RGB, ``3 * W + 8`` wide and ``H + 22`` high. Images of less than 192 pixels on both sides
        are enlarged first, and narrow ones have room for their captions.

    Raises:
        ValueError: the shapes do not agree.
    """
    height, width = anomaly_map.shape
    if image.shape != (height, width, 3) or (mask is not None and mask.shape != (height, width)):
        shapes = f"{image.shape}, {None if mask is None else mask.shape}, {anomaly_map.shape}"
        raise ValueError(f"image, mask and map do not agree in shape: {shapes}")
    factor = max(1, -(-SMALLEST // max(height, width)))
    size = (width * factor, height * factor)
    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    if mask is not None:
        mask = np.kron(mask, np.ones((factor, factor), dtype=bool))
    heat = Image.fromarray(_colours(anomaly_map, vmin, vmax))
    panels = [
        picture,
        picture if mask is None else _with_contour(picture, mask),
        _overlay(picture, np.asarray(heat.resize(size, Image.Resampling.BILINEAR))),
    ]
    middle = f"no {contour}" if mask is None else contour
    captions = [title, middle, f"map, {vmin:.3g} to {vmax:.3g}"]
    column_width = max(size[0], SMALLEST)
    strip = Image.new("RGB", (3 * column_width + 2 * GAP, size[1] + CAPTION), PAPER)
    for column, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = column * (column_width + GAP)
        strip.paste(Image.fromarray(panel), (left, CAPTION))
        draw_text(strip, (left + 2, 3), caption, 13, column_width - 4)
    return strip


def draw_text(
    image: Image.Image, position: tuple[int, int], text: str, size: int, width: int
) -> None:
    """Writes a line in ``size`` pixels, shortened with "..." to ``width`` pixels."""
    letters, text = font(size), printable(text)
    if letters.getlength(text) > width:
        while text and letters.getlength(f"{text}...") > width:
            text = text[:-1]
        text += "..."
    ImageDraw.Draw(image).text(position, text, fill=INK, font=letters)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships."""
    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size
    )


def colour_bar(width: int, height: int) -> Image.Image:
    """The colours of the map from lowest to highest, left to right, as they look over grey."""
    ramp = np.tile(np.linspace(0, 1, width), (height, 1))
    return Image.fromarray(
        _overlay(np.full((height, width, 3), 128, np.uint8), _colours(ramp, 0, 1))
    )


def save_png(image: Image.Image, path: Path, text: dict[str, str] | None = None) -> Path:
    """Writes the image atomically, with its text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        # A file's name may hold bytes that are not UTF-8.
        info.add_itxt(key, value.encode(errors="backslashreplace").decode())
    return write_atomically(path, lambda file: image.save(file, format="PNG", pnginfo=info))


def _colours(values: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """(H, W) -> uint8 (H, W, 3)."""
    span = vmax - vmin
    scaled = (np.nan_to_num(values, nan=vmin) - vmin) / span if span > 0 else np.zeros_like(values)
    return matplotlib.colormaps[COLORMAP](np.clip(scaled, 0, 1), bytes=True)[..., :3]


def _overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The colours over the grey picture: its own hues would mix with the map's."""
    grey = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    return np.round((1 - OPACITY) * grey + OPACITY * heat).astype(np.uint8)


def _with_contour(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The outline just outside the mask, with a dark rim, so that it shows on any picture.

    It is 2 pixels wide, in pictures of more than 600 pixels in proportion.
    """
    drawn = picture.copy()
    if mask.any():
        width = max(2, round(max(mask.shape) / 300))
        line = ndimage.maximum_filter(mask, 2 * width + 1)
        rim = ndimage.maximum_filter(line, 2 * (width // 2) + 1)
        drawn[rim & ~line] = 0
        drawn[line & ~mask] = CONTOUR
    return drawn


def with_small_parts(mask: np.ndarray, source: np.ndarray) -> np.ndarray:
    """A resized mask with the parts of its source that are too small to be left at its size.

    Args:
        mask: bool (H, W).
        source: bool (H', W'), what the mask was made of at another size.

    Returns:
        Bool (H, W).
    """
    height, width = mask.shape
    labels, _ = ndimage.label(source, structure=np.ones((3, 3)))
    drawn = mask.copy()
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        top, bottom = _span(rows, source.shape[0], height)
        left, right = _span(columns, source.shape[1], width)
        if mask[top:bottom, left:right].any():
            continue
        y, x = np.nonzero(labels[rows, columns] == label)
        y, x = y + rows.start, x + columns.start
        drawn[y * height // source.shape[0], x * width // source.shape[1]] = True
    return drawn


def _span(part: slice, old: int, new: int) -> tuple[int, int]:
    """The pixels of a side of ``new`` that cover a slice of one of ``old``."""
    return part.start * new // old, -(-part.stop * new // old)


def sheet_captions(files: Sequence[Path]) -> pd.DataFrame:
    """``file, path, defect, caption`` of the heatmaps among these files, from their text chunks."""
    rows = []
    for file in files:
        with Image.open(file, formats=["PNG"]) as image:
            text = getattr(image, "text", {})
        if {"path", "defect", "caption"} <= set(text):
            rows.append({"file": file, **{k: str(text[k]) for k in ("path", "defect", "caption")}})
    return pd.DataFrame(rows, columns=["file", "path", "defect", "caption"])


PANEL, MARGIN, LABEL, BAND, HEAD = 132, 14, 104, 20, 34  # pixels
PANELS = 3


def heatmap_sheet(
    run_dirs: Sequence[Path | str], path: Path | str, title: str = "", strips: int = 3
) -> Path | None:
    """Writes one PNG, atomically: a row for each run, with a legend.

    Args:
        run_dirs: the runs, one for each category, in the order of the rows.
        path: the file to write.
        title: a line at the top.
        strips: how many heatmaps in a row at most, defects first, one good among them.

    Returns:
        The path, or None if no run has heatmaps (then nothing is written).

    Raises:
        UserError: a run's record or heatmap cannot be read.
    """
    rows = [(folder, _strips(Path(folder), strips)) for folder in run_dirs]
    rows = [(folder, found) for folder, found in rows if found]
    if not rows:
        return None
    strip_width = PANELS * PANEL + (PANELS - 1) * GAP
    row_height = BAND + PANEL + GAP
    widest = max(len(found) for _, found in rows)
    width = 2 * MARGIN + LABEL + widest * (strip_width + MARGIN)
    # Even with one strip in a row the legend has room.
    sheet = Image.new("RGB", (max(width, 640), 2 * HEAD + len(rows) * row_height + MARGIN), PAPER)
    draw_text(sheet, (MARGIN, 10), title, 15, sheet.width - 2 * MARGIN)
    _legend(sheet, HEAD)
    for number, (folder, found) in enumerate(rows):
        top = 2 * HEAD + number * row_height
        category = str(read_record(folder)["data"]["category"])
        draw_text(sheet, (MARGIN, top + BAND + PANEL // 2 - 8), category, 14, LABEL - 6)
        for column, (strip, caption) in enumerate(found):
            left = MARGIN + LABEL + column * (strip_width + MARGIN)
            draw_text(sheet, (left, top + 3), caption, 12, strip_width)
            sheet.paste(strip, (left, top + BAND))
    return save_png(sheet, Path(path))


def _strips(run_dir: Path, count: int) -> list[tuple[Image.Image, str]]:
    """A run's chosen heatmaps, without their caption bar, and their captions; defects first."""
    try:
        found = sheet_captions(sorted((run_dir / FOLDER).glob("*.png")))
        chosen = found.iloc[choose_examples(found, count)]
        chosen = chosen.sort_values("defect", key=lambda name: name == GOOD, kind="stable")
        return [
            (_panels(file), caption)
            for file, caption in zip(chosen["file"], chosen["caption"], strict=True)
        ]
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(
            f"{run_dir / FOLDER}: a heatmap cannot be read ({one_line(error)}); delete it"
        ) from error


def _panels(file: Path) -> Image.Image:
    """The three panels, each at ``PANEL`` height and at most as wide."""
    with Image.open(file, formats=["PNG"]) as strip:
        strip.load()
    panel_width = (strip.width - (PANELS - 1) * GAP) // PANELS
    row = Image.new("RGB", (PANELS * PANEL + (PANELS - 1) * GAP, PANEL), PAPER)
    for number in range(PANELS):
        left = number * (panel_width + GAP)
        panel = strip.crop((left, CAPTION, left + panel_width, strip.height))
        panel.thumbnail((PANEL, PANEL), Image.Resampling.LANCZOS)
        row.paste(panel, (number * (PANEL + GAP), 0))
    return row


def _legend(sheet: Image.Image, top: int) -> None:
    """What the panels and colours mean, on one line."""
    draw = ImageDraw.Draw(sheet)
    left = MARGIN
    draw_text(sheet, (left, top + 3), "image |", 12, 60)
    draw.line((left + 50, top + 11, left + 78, top + 11), fill=(0, 0, 0), width=5)
    draw.line((left + 51, top + 11, left + 77, top + 11), fill=CONTOUR, width=3)
    draw_text(sheet, (left + 84, top + 3), "ground truth | anomaly map: low", 12, 240)
    sheet.paste(colour_bar(140, 12), (left + 290, top + 5))
    draw_text(sheet, (left + 436, top + 3), "high (one scale for each run)", 12, 190)
