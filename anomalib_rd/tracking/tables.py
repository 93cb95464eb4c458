"""What W&B shows of one test: numbers in the summary, a row per image, pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from anomalib_rd.results.scored_image import ScoredImage
from anomalib_rd.tracking.keys import EXAMPLES, IMAGES, MAPS

if TYPE_CHECKING:
    import wandb

_COLUMNS = ["path", "category", "defect", "label", "score"]
_CLASSES = {0: "normal", 1: "defect"}


@rank_zero_only
def log_evaluation(
    logger: Logger,
    *,
    categories: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, float],
    scores: pd.DataFrame,
    images: Sequence[ScoredImage],
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

    category = dict(zip(scores["path"], scores["category"], strict=True))
    captions = [
        (f"{category[image.path]}: " if len(categories) > 1 else "")
        + f"{image.defect} {PurePath(image.path).stem}, score {image.score:.3f}"
        for image in images
    ]
    paths = [image.path for image in images]
    pictures = dict(zip(paths, map(_overlays, images, captions), strict=True))
    maps = dict(zip(paths, _maps(images, captions), strict=True))
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


def _overlays(image: ScoredImage, caption: str) -> "wandb.Image":
    import wandb

    masks = {"prediction": image.predicted_mask, "ground_truth": image.mask}
    return wandb.Image(
        image.image,
        caption=caption,
        masks={
            name: {"mask_data": mask.astype(np.uint8), "class_labels": _CLASSES}
            for name, mask in masks.items()
            if mask is not None
        },
    )


def _maps(images: Sequence[ScoredImage], captions: Sequence[str]) -> list["wandb.Image"]:
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
            caption=caption,
        )
        for image, caption in zip(images, captions, strict=True)
    ]
