"""The Lightning logger for W&B, and what it logs of a test."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from anomalib_rd.errors import UserError
from anomalib_rd.results.record import SCORE_COLUMNS
from anomalib_rd.results.scored_image import ScoredImage
from anomalib_rd.tracking.keys import EXAMPLES, IMAGES, MAPS
from anomalib_rd.tracking.wandb_runs import MODES, finish_run, start_run

if TYPE_CHECKING:
    import wandb

_INVALID_IN_PROJECTS = "/\\#?%:"
_MAX_TAG, _MAX_PROJECT = 64, 128  # characters that the server accepts
_CLASSES = {0: "normal", 1: "defect"}


def wandb_logger(
    *,
    project: str | None,
    entity: str | None,
    group: str | None,
    job_type: str | None,
    name: str | None,
    tags: Sequence[str],
    save_dir: str | Path | None,
    mode: str | None = None,
    id: str | None = None,
) -> WandbLogger:
    """A Lightning logger whose W&B run starts at first use and never blocks training.

    Arguments that are None, and empty tags, default to W&B's environment variables (WANDB_PROJECT,
    WANDB_ENTITY, WANDB_RUN_GROUP, WANDB_JOB_TYPE, WANDB_NAME, WANDB_TAGS, WANDB_DIR,
    WANDB_RUN_ID).

    Args:
        project, entity, group, job_type, name, id: see `wandb.init`; ``id`` continues a run.
        tags: labels to filter by; cut to W&B's 64 characters, without blank ones.
        save_dir: folder for W&B's files, created if missing.
        mode: online, offline or disabled; None: WANDB_MODE or the setting of `wandb offline`,
            else online. Online without a login, or with a server that refuses or does not
            answer within WANDB_INIT_TIMEOUT seconds (5), becomes offline, with a warning.

    Raises:
        UserError: unknown mode, or a project name that W&B refuses.
    """
    mode = mode or os.environ.get("WANDB_MODE") or None
    if mode not in (None, *MODES):
        raise UserError(
            f"logger.wandb.mode={mode} (or WANDB_MODE) does not exist: "
            "use online, offline or disabled"
        )
    if project and (set(project) & set(_INVALID_IN_PROJECTS) or len(project) > _MAX_PROJECT):
        raise UserError(
            f"logger.wandb.project={project}: W&B accepts at most {_MAX_PROJECT} characters and "
            f"none of {' '.join(_INVALID_IN_PROJECTS)}"
        )
    init = {
        "project": project,
        "entity": entity,
        "group": group,
        "job_type": job_type,
        "name": name,
        "tags": [str(tag)[:_MAX_TAG] for tag in tags if str(tag).strip()] or None,
        "dir": None if save_dir is None else str(save_dir),
        "mode": mode,
        "id": id,
        "resume": "allow" if id else None,
    }
    return LazyWandbLogger(**{key: value for key, value in init.items() if value is not None})


class LazyWandbLogger(WandbLogger):
    """Lightning's logger with a run that starts at first use, offline if necessary."""

    def __init__(self, **init: Any) -> None:
        super().__init__(
            name=init.get("name"),
            save_dir=init.get("dir") or os.environ.get("WANDB_DIR") or ".",
            project=init.get("project"),
            id=init.get("id"),
        )
        self._init = init

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at first use on rank zero."""
        # In a spawned worker Lightning attaches to the run of the parent process.
        if self._experiment is None and getattr(self, "_attach_id", None) is None:
            self._experiment = run = start_run(self._init)
            # Lightning logs by step, charts are over epochs. No pattern "*", because W&B does not
            # document which of two matching patterns wins. No summary="last" for test/*: W&B keeps
            # the last value anyway, and it would turn each number into {"last": number} and hide
            # tables and images from the workspace.
            run.define_metric("epoch", hidden=True)
            run.define_metric("trainer/global_step", hidden=True)
            run.define_metric("train/*", step_metric="epoch")
            run.define_metric("val/*", step_metric="epoch")
            run.define_metric("test_curve/*", step_metric="epoch")
            run.define_metric("lr-*", step_metric="trainer/global_step")
        return super().experiment


@contextmanager
def close_runs(loggers: Iterable[Logger]) -> Iterator[None]:
    """Close the loggers' W&B runs after the block, as failed if it raises.

    Otherwise the next run in the same process would be logged into the same W&B run.
    """
    loggers = list(loggers)
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in loggers:
            finish(logger, failed=failed)


def finish(logger: Logger, failed: bool) -> None:
    """Close the W&B run of a logger, if any; see `finish_run`."""
    run = logger._experiment if isinstance(logger, WandbLogger) else None
    if run is not None:
        finish_run(run, failed)


@rank_zero_only
def log_evaluation(
    logger: Logger,
    *,
    categories: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, float],
    scores: pd.DataFrame,
    images: Sequence[ScoredImage],
) -> None:
    """Log a run's test result to a W&B logger; other loggers are ignored.

    Summary: `test/<metric>` of `metrics` to compare runs by, and `<category>/<metric>` of
    `categories`, a column per category in a sweep. Undefined (NaN) metrics are omitted: W&B stores
    NaN as a string, which turns the column into text and breaks means over a group, but skips
    missing values.

    History: table `test/images`, a row per image of `scores` with `SCORE_COLUMNS`, with pictures of
    `images`; panels `test/examples` (with ground truth and prediction as overlays) and
    `test/anomaly_maps` (inferno, the same colour scale for all).

    Raises:
        ValueError: an image's path has no row in `scores`.
    """
    if not isinstance(logger, WandbLogger):
        return
    category = dict(zip(scores["path"], scores["category"], strict=True))
    if missing := {image.path for image in images} - set(category):
        raise ValueError(f"images without a row in scores: {sorted(missing)}")

    import wandb

    captions = [
        (f"{category[image.path]}: " if len(categories) > 1 else "")
        + f"{image.defect} {PurePath(image.path).stem}, score {image.score:.3f}"
        for image in images
    ]
    paths = [image.path for image in images]
    pictures = dict(zip(paths, map(_with_masks, images, captions), strict=True))
    maps = dict(zip(paths, _coloured_maps(images, captions), strict=True))
    rows: list[Any] = [
        [*row, pictures.get(row[0]), maps.get(row[0])]
        for row in scores[SCORE_COLUMNS].astype(object).itertuples(index=False)
    ]
    media: dict[str, Any] = {
        IMAGES: wandb.Table(columns=[*SCORE_COLUMNS, "image", "anomaly_map"], data=rows)
    }
    if images:
        media |= {EXAMPLES: list(pictures.values()), MAPS: list(maps.values())}
    run = logger.experiment
    run.log(media)
    for prefix, values in {"test": metrics, **categories}.items():
        defined = {f"{prefix}/{k}": float(v) for k, v in values.items() if not math.isnan(v)}
        run.summary.update(defined)


def _with_masks(image: ScoredImage, caption: str) -> "wandb.Image":
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


def _coloured_maps(images: Sequence[ScoredImage], captions: Sequence[str]) -> list["wandb.Image"]:
    import matplotlib
    import wandb

    low = min((float(image.anomaly_map.min()) for image in images), default=0.0)
    high = max((float(image.anomaly_map.max()) for image in images), default=1.0)
    colour = matplotlib.colormaps["inferno"]
    return [
        wandb.Image(
            colour((image.anomaly_map - low) / ((high - low) or 1.0), bytes=True)[..., :3],
            caption=caption,
        )
        for image, caption in zip(images, captions, strict=True)
    ]
