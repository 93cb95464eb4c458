"""One picture of many runs: a row of heatmaps for each category."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, UnidentifiedImageError

from anomalib_rd.errors import UserError
from anomalib_rd.reports.heatmaps import (
    CAPTION,
    CONTOUR,
    FOLDER,
    GAP,
    GOOD,
    PAPER,
    choose_examples,
    colour_bar,
    draw_text,
    save_png,
    sheet_captions,
)
from anomalib_rd.results.files import one_line
from anomalib_rd.results.record import read_record

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
