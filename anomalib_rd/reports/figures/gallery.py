"""Example images of runs: image, ground truth and anomaly map, a row for each category."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from anomalib_rd.errors import UserError
from anomalib_rd.reports.figures.style import WIDTH, add_legend_and_notes, shorten
from anomalib_rd.reports.heatmaps import COLORMAP, OPACITY
from anomalib_rd.results.files import one_line
from anomalib_rd.results.gallery import Gallery
from anomalib_rd.results.record import read_scores
from anomalib_rd.results.scored_image import ScoredImage

KINDS = ("lowest-scored defect", "typical defect", "highest-scored normal")
ROWS = 9  # on one page
PANEL, CAPTION, HEAD = 0.72, 0.13, 0.45  # inches
SIDE = 200  # pixels in print, 280 to an inch
CONTOUR = "#00E5FF"  # a hue that neither the map nor most products have
# Inches: for category names, for the panels of a kind, between kinds.
LEFT, GAP = 0.3, 0.08
KIND = (WIDTH - LEFT) / len(KINDS)
NOTE = (
    "Each: image, ground truth (contour), anomaly map over the grey image; above: defect type and "
    "image score. Colours of the map have one scale for each category, from its median."
)


def choose_examples(scores: pd.DataFrame) -> dict[str, str]:
    """Kind -> path: the defect with the lowest score, the median defect, the highest normal.

    Args:
        scores: rows with ``path, label, score``. Ties go by path; a kind may be missing.
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


def read_examples(run: str) -> dict[str, ScoredImage]:
    """Kind -> an image of the run's gallery, its map in grey levels.

    Raises:
        UserError: the scores or the gallery cannot be read.
    """
    with Gallery(run) as gallery:
        scores = read_scores(run)
        scores = scores[scores["path"].isin(gallery.paths)]
        rows = {row["path"]: row for row in scores.to_dict("records")}
        return {
            kind: ScoredImage(
                image=_decode(gallery.image(path), run),
                mask=gallery.mask(path),
                anomaly_map=_decode(gallery.map(path), run),
                path=path,
                defect=rows[path]["defect"],
                score=rows[path]["score"],
            )
            for kind, path in choose_examples(scores).items()
        }


def _decode(jpeg: bytes, run: str) -> np.ndarray:
    try:
        with Image.open(BytesIO(jpeg), formats=["JPEG"]) as image:
            return np.asarray(image)
    except OSError as error:
        raise UserError(f"{run}: damaged image in gallery.zip ({one_line(error)})") from error


def draw_gallery(rows: Sequence[tuple[str, Mapping[str, ScoredImage]]], title: str) -> Figure:
    """One page.

    Args:
        rows: category and its images of `read_examples`, at most ``ROWS``.
        title: first line.
    """
    figure = Figure(figsize=(WIDTH, HEAD + len(rows) * (PANEL + CAPTION)))
    figure.set_layout_engine("none")
    add_legend_and_notes(figure, [NOTE])
    height = figure.get_figheight()
    figure.text(0.06 / WIDTH, 1 - 0.15 / height, title)
    centres = [(LEFT + (index + 0.5) * KIND - GAP / 2) / WIDTH for index in range(len(KINDS))]
    for x, kind in zip(centres, KINDS, strict=True):
        figure.text(x, 1 - 0.38 / height, kind, ha="center", weight="bold")
    for row, (category, images) in enumerate(rows):
        bottom = height - HEAD - (row + 1) * (PANEL + CAPTION)
        y = (bottom + PANEL / 2) / height
        name = shorten(category, 16)
        figure.text(0.15 / WIDTH, y, name, rotation=90, va="center", ha="center")
        for index, (x, kind) in enumerate(zip(centres, KINDS, strict=True)):
            if kind in images:
                _draw_example(figure, LEFT + index * KIND, bottom, images[kind])
            else:
                figure.text(x, y, "none", ha="center", va="center", color="0.4")
    return figure


def _draw_example(figure: Figure, left: float, bottom: float, example: ScoredImage) -> None:
    """Three panels and a caption with their lower left corner at a position in inches."""
    height = figure.get_figheight()
    side = (KIND - GAP) / 3
    panels = [
        figure.add_axes(
            ((left + i * side) / WIDTH, bottom / height, (side - 0.03) / WIDTH, PANEL / height)
        )
        for i in range(3)
    ]
    caption = shorten(f"{example.defect}, {example.score:.3g}", 40)
    figure.text(left / WIDTH, (bottom + PANEL + 0.025) / height, caption, fontsize=5.5)
    image = Image.fromarray(example.image)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    for axes in panels:
        axes.set_axis_off()
        axes.set_anchor("W")
    box = (-0.5, image.width - 0.5, image.height - 0.5, -0.5)
    panels[0].imshow(np.asarray(image))
    panels[1].imshow(np.asarray(image))
    if example.mask is None:
        label = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        position: dict[str, Any] = {"ha": "center", "transform": panels[1].transAxes}
        panels[1].text(0.5, 0.5, "no ground truth", fontsize=5, bbox=label, **position)
    elif example.mask.any():
        _draw_contour(panels[1], example.mask, box)
    panels[2].imshow(np.asarray(image.convert("L")), "gray", vmin=0, vmax=255, extent=box)
    scale: dict[str, Any] = {"vmin": 0, "vmax": 255, "extent": box, "interpolation": "bilinear"}
    panels[2].imshow(example.anomaly_map, COLORMAP, alpha=OPACITY, **scale)


def _draw_contour(axes: Axes, mask: np.ndarray, box: tuple[float, float, float, float]) -> None:
    """The mask's outline, closed at the image's border, with a dark rim."""
    height, width = mask.shape
    padded = np.pad(mask.astype(float), 1)
    x = (np.arange(-1, width + 1) + 0.5) / width * (box[1] - box[0]) + box[0]
    y = (np.arange(-1, height + 1) + 0.5) / height * (box[2] - box[3]) + box[3]
    contour = axes.contour(x, y, padded, [0.5], colors=[CONTOUR], linewidths=0.8)
    contour.set_path_effects([withStroke(linewidth=1.6, foreground="black")])
    axes.set_xlim(box[0], box[1])
    axes.set_ylim(box[2], box[3])
