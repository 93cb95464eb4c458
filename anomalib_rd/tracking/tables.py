"""What W&B shows of one test: numbers in the summary, a row per image, pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from anomalib_rd.tracking.keys import EXAMPLES, IMAGES, MAPS

if TYPE_CHECKING:
    import wandb

_COLUMNS = ["path", "category", "defect", "label", "score"]
_CLASSES = {0: "normal", 1: "defect"}


@dataclass(frozen=True)
class LoggedImage:
    """One test image to show.

    Attributes:
        image: (H, W, 3) uint8.
        mask: (H, W) bool ground truth, None where there is none.
        anomaly_map: (H, W) float, higher is more anomalous.
        predicted: (H, W) bool, the map above its threshold.
        caption: shown under the picture.
        path: the image's `path` in the scores table.
    """

    image: np.ndarray
    mask: np.ndarray | None
    anomaly_map: np.ndarray
    predicted: np.ndarray
    caption: str
    path: str


@rank_zero_only
def log_evaluation(
    logger: Logger,
    *,
    categories: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, float],
    scores: pd.DataFrame,
    images: Sequence[LoggedImage],
) -> None:
    """Log a run's test result to a W&B logger; any other logger is left alone.

    Summary: `test/<metric>` of `metrics`, a column to compare runs by, and `<category>/<metric>`
    of `categories`, a column per category in a sweep. An undefined (NaN) metric is left out: W&B
    stores NaN as a string, which turns the column into text and spoils means over a group, while a
    missing value shows as a blank and is skipped.

    History: table `test/images`, a row per image of `scores` (columns path, category, defect,
    label, score) with pictures where `images` has them, and the panels `test/examples` (with
    switchable ground truth and prediction) and `test/anomaly_maps` (inferno; one colour
    scale for all of them, so that they compare).

    Raises:
        ValueError: if an image's path has no row in `scores`.
    """
    if not isinstance(logger, WandbLogger):
        return
    missing = {image.path for image in images} - set(scores["path"])
    if missing:
        raise ValueError(f"images without a row in scores: {sorted(missing)}")

    import wandb

    pictures = {image.path: _overlays(image) for image in images}
    maps = dict(zip((image.path for image in images), _maps(images), strict=True))
    rows: list[Any] = [
        [*row, pictures.get(row[0]), maps.get(row[0])]
        for row in scores[_COLUMNS].astype(object).itertuples(index=False)
    ]
    media: dict[str, Any] = {
        IMAGES: wandb.Table(columns=[*_COLUMNS, "image", "anomaly_map"], data=rows)
    }
    if images:
        media[EXAMPLES] = list(pictures.values())
        media[MAPS] = list(maps.values())
    run = logger.experiment
    run.log(media)
    for prefix, found in {"test": metrics, **categories}.items():
        defined = {key: float(value) for key, value in found.items() if not math.isnan(value)}
        run.summary.update({f"{prefix}/{key}": value for key, value in defined.items()})


def _overlays(image: LoggedImage) -> "wandb.Image":
    import wandb

    masks = {"prediction": image.predicted}
    if image.mask is not None:
        masks["ground_truth"] = image.mask
    return wandb.Image(
        image.image,
        caption=image.caption,
        masks={
            name: {"mask_data": mask.astype(np.uint8), "class_labels": _CLASSES}
            for name, mask in masks.items()
        },
    )


def _maps(images: Sequence[LoggedImage]) -> list["wandb.Image"]:
    import matplotlib
    import wandb

    if not images:
        return []
    low = min(float(image.anomaly_map.min()) for image in images)
    high = max(float(image.anomaly_map.max()) for image in images)
    colour = matplotlib.colormaps["inferno"]
    return [
        wandb.Image(
            colour((image.anomaly_map - low) / ((high - low) or 1.0), bytes=True)[..., :3],
            caption=image.caption,
        )
        for image in images
    ]
