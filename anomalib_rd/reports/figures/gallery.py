"""Which test images of a run are worth showing."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from anomalib_rd.errors import UserError
from anomalib_rd.reports.figures.style import WIDTH, foot, short
from anomalib_rd.reports.heatmaps import COLORMAP, OPACITY
from anomalib_rd.results.files import one_line
from anomalib_rd.results.gallery import Gallery
from anomalib_rd.results.record import read_scores
from anomalib_rd.results.scored_image import ScoredImage

KINDS = ("lowest-scored defect", "typical defect", "highest-scored normal")


def choose(scores: pd.DataFrame) -> dict[str, str]:
    """Kind -> path: the defect most likely missed, the middle one, the normal one most suspected.

    Args:
        scores: rows with ``path, label, score``. Ties go by path; a kind may be lacking.
    """
    ordered = scores.dropna(subset="score").sort_values(["score", "path"])
    defects = ordered["path"][ordered["label"] == 1].tolist()
    normals = ordered["path"][ordered["label"] == 0].tolist()
    chosen = {}
    if defects:
        chosen = {KINDS[0]: defects[0], KINDS[1]: defects[len(defects) // 2]}
    if normals:
        chosen[KINDS[2]] = normals[-1]
    return chosen


def pictures(run: str) -> dict[str, ScoredImage]:
    """Kind -> the image, of those in the run's gallery; its map in grey levels.

    Raises:
        UserError: the scores or the gallery cannot be read.
    """
    with Gallery(run) as gallery:
        scores = read_scores(run)
        scores = scores[scores["path"].isin(gallery.paths)]
        defects = dict(zip(scores["path"], scores["defect"], strict=True))
        values = dict(zip(scores["path"], scores["score"], strict=True))
        return {
            kind: ScoredImage(
                image=_pixels(gallery.image(path), run),
                mask=gallery.mask(path),
                anomaly_map=_pixels(gallery.map(path), run),
                path=path,
                defect=defects[path],
                score=values[path],
            )
            for kind, path in choose(scores).items()
        }


def _pixels(content: bytes, run: str) -> np.ndarray:
    try:
        with Image.open(BytesIO(content), formats=["JPEG"]) as picture:
            return np.asarray(picture)
    except OSError as error:
        raise UserError(f"{run}: an image of its gallery is damaged ({one_line(error)})") from error


ROWS = 9  # on one page
PANEL, CAPTION, HEAD = 0.72, 0.13, 0.45  # inches
SIDE = 200  # pixels in print, 280 to an inch
CONTOUR = "#00E5FF"  # the hue that neither the map nor most products have
PANELS = 3
# Inches: room for a category's name, the width of a kind's panels, the gap after it.
LEFT, GAP = 0.3, 0.08
KIND = (WIDTH - LEFT) / len(KINDS)
EXPLAINED = (
    "Each: image, ground truth (contour), anomaly map over the grey image; above: defect type and "
    "image score. The map's colours are one scale for each category, from its median up."
)


def sheet(rows: Sequence[tuple[str, Mapping[str, ScoredImage]]], title: str) -> Figure:
    """One page.

    Args:
        rows: category and its pictures of `pictures`, at most ``ROWS``.
        title: a line at the top.
    """
    figure = Figure(figsize=(WIDTH, HEAD + len(rows) * (PANEL + CAPTION)))
    figure.set_layout_engine("none")
    foot(figure, [EXPLAINED])
    height = figure.get_figheight()
    figure.text(0.06 / WIDTH, 1 - 0.15 / height, title)
    for number, kind in enumerate(KINDS):
        x = (LEFT + (number + 0.5) * KIND - GAP / 2) / WIDTH
        figure.text(x, 1 - 0.38 / height, kind, ha="center", weight="bold")
        for row, (category, found) in enumerate(rows):
            bottom = height - HEAD - (row + 1) * (PANEL + CAPTION)
            y = (bottom + PANEL / 2) / height
            if number == 0:
                name = short(category, 16)
                figure.text(0.15 / WIDTH, y, name, rotation=90, va="center", ha="center")
            if kind in found:
                _triple(figure, LEFT + number * KIND, bottom, found[kind])
            else:
                figure.text(x, y, "none", ha="center", va="center", color="0.4")
    return figure


def _triple(figure: Figure, left: float, bottom: float, picture: ScoredImage) -> None:
    """Three panels and a caption, with their lower left corner there, in inches."""
    height = figure.get_figheight()
    side = (KIND - GAP) / PANELS
    panels = [
        figure.add_axes(
            ((left + i * side) / WIDTH, bottom / height, (side - 0.03) / WIDTH, PANEL / height)
        )
        for i in range(PANELS)
    ]
    caption = short(f"{picture.defect}, {picture.score:.3g}", 40)
    figure.text(left / WIDTH, (bottom + PANEL + 0.025) / height, caption, fontsize=5.5)
    _draw(panels, picture)


def _draw(panels: Sequence[Axes], picture: ScoredImage) -> None:
    image = _in_print(picture.image)
    for axes in panels:
        axes.set_axis_off()
        axes.set_anchor("W")
    panels[0].imshow(image)
    panels[1].imshow(image)
    height, width = image.shape[:2]
    box = (-0.5, width - 0.5, height - 0.5, -0.5)
    if picture.mask is None:
        panels[1].text(
            0.5,
            0.5,
            "no ground truth",
            fontsize=5,
            ha="center",
            transform=panels[1].transAxes,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    elif picture.mask.any():
        _contour(panels[1], picture.mask, box)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    panels[2].imshow(grey, "gray", vmin=0, vmax=255, extent=box)
    panels[2].imshow(
        picture.anomaly_map,
        COLORMAP,
        vmin=0,
        vmax=255,
        alpha=OPACITY,
        extent=box,
        interpolation="bilinear",
    )


def _contour(axes: Axes, mask: np.ndarray, box: tuple[float, float, float, float]) -> None:
    """The mask's outline, closed at the image's border, with a dark rim."""
    height, width = mask.shape
    padded = np.pad(mask.astype(float), 1)
    x = (np.arange(-1, width + 1) + 0.5) / width * (box[1] - box[0]) + box[0]
    y = (np.arange(-1, height + 1) + 0.5) / height * (box[2] - box[3]) + box[3]
    drawn = axes.contour(x, y, padded, [0.5], colors=[CONTOUR], linewidths=0.8)
    drawn.set_path_effects([withStroke(linewidth=1.6, foreground="black")])
    axes.set_xlim(box[0], box[1])
    axes.set_ylim(box[2], box[3])


def _in_print(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture)
