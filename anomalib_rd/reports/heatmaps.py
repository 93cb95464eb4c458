"""Heatmaps of test images: image | ground truth | anomaly map, as PNG, without a display."""

import logging
from collections import Counter, defaultdict
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
COLORMAP = "inferno"  # lightness rises evenly: readable in print and for the colour-blind
CONTOUR = (0, 229, 255)  # a hue that neither inferno nor most products have
OPACITY = 0.65
CAPTION, GAP, SMALLEST = 22, 4, 192  # pixels
INK, PAPER = (30, 30, 30), (255, 255, 255)
PANEL, MARGIN, LABEL, BAND, HEAD = 132, 14, 104, 20, 34  # pixels, of the sheet
PANELS = 3


def choose_examples(scores: pd.DataFrame, n: int) -> list[int]:
    """Positions of at most ``n`` rows, spread evenly over the defect types and good.

    Deterministic. Types take turns (a defect, good, then the other defects by name); within a
    type, images are evenly spaced by path, so that neither the best nor the worst are preferred.

    Args:
        scores: rows with ``path`` and ``defect``, as in scores.csv.
        n: largest number of rows.

    Returns:
        Ascending positions.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row in np.argsort(scores["path"].to_numpy(dtype=str), kind="stable"):
        groups[str(scores["defect"].iloc[row])].append(int(row))
    types = sorted(set(groups) - {GOOD})
    if GOOD in groups:
        types.insert(min(1, len(types)), GOOD)
    turns = [(turn, name) for name in types for turn in range(len(groups[name]))]
    counts = Counter(name for _, name in sorted(turns, key=lambda turn: turn[0])[:n])
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
    """Write ``heatmaps/<defect>_<stem>.png`` for each example, each atomically.

    An example that cannot be drawn or written is skipped with a warning.

    Args:
        run_dir: the run's folder.
        examples: images to draw.
        vmin: anomaly value of the darkest colour; default: the lowest of all examples.
        vmax: anomaly value of the brightest colour; default: the highest of all examples.

    Returns:
        The written files, in the order of the examples.
    """
    examples = list(examples)
    # One scale for all: a good image must not look as hot as a defect.
    if vmin is None:
        vmin = min((float(np.nanmin(e.anomaly_map)) for e in examples), default=0.0)
    if vmax is None:
        vmax = max((float(np.nanmax(e.anomaly_map)) for e in examples), default=1.0)
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
            if path in written:  # same stem with another extension or in another folder
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
    """Image | contour of the mask on the image | anomaly map over the image, with captions.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W), or None.
        anomaly_map: float (H, W).
        vmin: anomaly value of the darkest colour.
        vmax: anomaly value of the brightest colour.
        title: caption of the first panel.
        contour: caption of the second panel, what the mask is.

    Returns:
        RGB, ``3 * W + 8`` wide and ``H + 22`` high. Images below 192 pixels on both sides are
        enlarged first, and panels are at least 192 wide for their captions.

    Raises:
        ValueError: the shapes do not match.
    """
    height, width = anomaly_map.shape
    if image.shape != (height, width, 3) or (mask is not None and mask.shape != (height, width)):
        shapes = f"{image.shape}, {None if mask is None else mask.shape}, {anomaly_map.shape}"
        raise ValueError(f"shapes of image, mask and map do not match: {shapes}")
    factor = max(1, -(-SMALLEST // max(height, width)))
    size = (width * factor, height * factor)
    pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    if mask is not None:
        mask = np.kron(mask, np.ones((factor, factor), dtype=bool))
    heat = Image.fromarray(_colorize(anomaly_map, vmin, vmax))
    overlay = _overlay(pixels, np.asarray(heat.resize(size, Image.Resampling.BILINEAR)))
    panels = [
        (title, pixels),
        (f"no {contour}" if mask is None else contour, _draw_contour(pixels, mask)),
        (f"map, {vmin:.3g} to {vmax:.3g}", overlay),
    ]
    panel_width = max(size[0], SMALLEST)
    strip = Image.new("RGB", (3 * panel_width + 2 * GAP, size[1] + CAPTION), PAPER)
    for column, (caption, panel) in enumerate(panels):
        left = column * (panel_width + GAP)
        strip.paste(Image.fromarray(panel), (left, CAPTION))
        draw_text(strip, (left + 2, 3), caption, 13, panel_width - 4)
    return strip


def heatmap_sheet(
    run_dirs: Sequence[Path | str], path: Path | str, title: str = "", strips: int = 3
) -> Path | None:
    """Write one PNG with a row of heatmaps for each run, atomically.

    Args:
        run_dirs: runs in the order of the rows, one for each category.
        path: the file.
        title: first line.
        strips: largest number of heatmaps in a row: defects first, at least one good.

    Returns:
        The path, or None if no run has heatmaps.

    Raises:
        UserError: a run's record or heatmap cannot be read.
    """
    rows = [(folder, _read_strips(Path(folder), strips)) for folder in run_dirs]
    rows = [(folder, images) for folder, images in rows if images]
    if not rows:
        return None
    strip_width = PANELS * PANEL + (PANELS - 1) * GAP
    row_height = BAND + PANEL + GAP
    widest = max(len(images) for _, images in rows)
    # The legend needs 640 pixels.
    width = max(2 * MARGIN + LABEL + widest * (strip_width + MARGIN), 640)
    sheet = Image.new("RGB", (width, 2 * HEAD + len(rows) * row_height + MARGIN), PAPER)
    draw_text(sheet, (MARGIN, 10), title, 15, width - 2 * MARGIN)
    _draw_legend(sheet, MARGIN, HEAD)
    for number, (folder, images) in enumerate(rows):
        top = 2 * HEAD + number * row_height
        category = str(read_record(folder)["data"]["category"])
        draw_text(sheet, (MARGIN, top + BAND + PANEL // 2 - 8), category, 14, LABEL - 6)
        for column, (strip, caption) in enumerate(images):
            left = MARGIN + LABEL + column * (strip_width + MARGIN)
            draw_text(sheet, (left, top + 3), caption, 12, strip_width)
            sheet.paste(strip, (left, top + BAND))
    return save_png(sheet, Path(path))


def draw_text(
    image: Image.Image, position: tuple[int, int], text: str, size: int, width: int
) -> None:
    """Draw a line of text, ``size`` pixels high, shortened with "..." to ``width`` pixels."""
    font, text = _load_font(size), printable(text)
    if font.getlength(text) > width:
        while text and font.getlength(f"{text}...") > width:
            text = text[:-1]
        text += "..."
    ImageDraw.Draw(image).text(position, text, fill=INK, font=font)


def save_png(image: Image.Image, path: Path, text: dict[str, str] | None = None) -> Path:
    """Write the image atomically, with text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        # A file name may contain bytes that are not UTF-8.
        info.add_itxt(key, value.encode(errors="backslashreplace").decode())
    return write_atomically(path, lambda file: image.save(file, format="PNG", pnginfo=info))


def with_small_parts(mask: np.ndarray, source: np.ndarray) -> np.ndarray:
    """A resized mask (H, W), with the parts of its source that vanished at the new size.

    Args:
        mask: bool (H, W).
        source: bool (H', W'), the mask before resizing.
    """
    size, old = np.array(mask.shape), np.array(source.shape)
    labels, _ = ndimage.label(source, structure=np.ones((3, 3)))
    drawn = mask.copy()
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        start, stop = np.array([(part.start, part.stop) for part in box]).T
        top, left = start * size // old
        bottom, right = -(-stop * size // old)
        if not mask[top:bottom, left:right].any():
            y, x = ((np.argwhere(labels[box] == label) + start) * size // old).T
            drawn[y, x] = True
    return drawn


@cache
def _load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships."""
    fonts = Path(matplotlib.get_data_path(), "fonts/ttf")
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)


def _colorize(values: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """(H, W) -> uint8 (H, W, 3)."""
    span = vmax - vmin
    scaled = (np.nan_to_num(values, nan=vmin) - vmin) / span if span > 0 else np.zeros_like(values)
    return matplotlib.colormaps[COLORMAP](np.clip(scaled, 0, 1), bytes=True)[..., :3]


def _overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colours over the image in grey, whose own hues would mix with the map's."""
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return np.round((1 - OPACITY) * grey + OPACITY * heat).astype(np.uint8)


def _draw_contour(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The outline just outside the mask with a dark rim, which is visible on any image.

    It is 2 pixels wide, more in images above 600 pixels.
    """
    drawn = image.copy()
    if mask is not None and mask.any():
        width = max(2, round(max(mask.shape) / 300))
        line = ndimage.maximum_filter(mask, 2 * width + 1)
        rim = ndimage.maximum_filter(line, 2 * (width // 2) + 1)
        drawn[rim & ~line] = 0
        drawn[line & ~mask] = CONTOUR
    return drawn


def _read_strips(run_dir: Path, count: int) -> list[tuple[Image.Image, str]]:
    """Chosen heatmaps of a run without caption bars, and their captions; defects first."""
    try:
        files = _read_captions(sorted((run_dir / FOLDER).glob("*.png")))
        chosen = files.iloc[choose_examples(files, count)]
        chosen = chosen.sort_values("defect", key=lambda name: name == GOOD, kind="stable")
        return [(_shrink_strip(row["file"]), row["caption"]) for _, row in chosen.iterrows()]
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(
            f"{run_dir / FOLDER}: cannot read a heatmap ({one_line(error)}); delete it"
        ) from error


def _read_captions(files: Sequence[Path]) -> pd.DataFrame:
    """``file, path, defect, caption`` from the PNG text of those that are heatmaps."""
    names = ["path", "defect", "caption"]
    rows = []
    for file in files:
        with Image.open(file, formats=["PNG"]) as image:
            text = getattr(image, "text", {})
        if set(names) <= set(text):
            rows.append([file, *(str(text[name]) for name in names)])
    return pd.DataFrame(rows, columns=["file", *names])


def _shrink_strip(file: Path) -> Image.Image:
    """The three panels, each at most ``PANEL`` high and wide."""
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


def _draw_legend(sheet: Image.Image, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw_text(sheet, (left, top + 3), "image |", 12, 60)
    draw.line((left + 50, top + 11, left + 78, top + 11), fill=(0, 0, 0), width=5)
    draw.line((left + 51, top + 11, left + 77, top + 11), fill=CONTOUR, width=3)
    draw_text(sheet, (left + 84, top + 3), "ground truth | anomaly map: low", 12, 240)
    ramp = _colorize(np.tile(np.linspace(0, 1, 140), (12, 1)), 0, 1)
    grey = np.full_like(ramp, 128)
    sheet.paste(Image.fromarray(_overlay(grey, ramp)), (left + 290, top + 5))
    draw_text(sheet, (left + 436, top + 3), "high (one scale for each run)", 12, 190)
