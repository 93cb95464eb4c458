"""The files that an evaluated run writes: record, scores, curves, heatmaps, gallery."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import Logger

from anomalib_rd.data import dataset_fingerprint
from anomalib_rd.data.images import load_image, load_mask
from anomalib_rd.errors import UserError
from anomalib_rd.metrics.ranking import best_f1_threshold_of_curve
from anomalib_rd.reports.heatmaps import (
    choose_examples,
    with_small_parts,
    write_heatmaps,
)
from anomalib_rd.results.files import one_line
from anomalib_rd.results.gallery import MAP_SIDE, fit_within, write_gallery
from anomalib_rd.results.record import RESULT, category_folder, write_record
from anomalib_rd.results.scored_image import ScoredImage
from anomalib_rd.tracking.wandb_logger import log_evaluation
from anomalib_rd.training.evaluated_run import (
    EvaluatedRun,
    count_by_defect,
    group,
    pixels_evaluated,
    validation_images,
    without_epoch,
)
from anomalib_rd.training.evaluation import score_as_tested

BATCH = 16  # images
SCALE_IMAGES = 8
"""Images that determine the colour scale if no heatmaps are drawn."""

log = logging.getLogger(__name__)


@contextmanager
def warn_on_error(consequence: str) -> Iterator[None]:
    """Log errors as warnings: the metrics must not be lost because a figure fails."""
    try:
        yield
    except Exception as error:
        log.warning("%s (%s)", consequence, one_line(error))
        log.debug("", exc_info=True)


def save_results(
    run: EvaluatedRun,
    folder: Path,
    name: str = RESULT,
    finish: Callable[[dict[str, Any], str | None], dict[str, Any]] = lambda record, _: record,
) -> dict[str, Any]:
    """Write scores, curves and finally the record, which is returned.

    Args:
        run: the evaluated run.
        folder: of the files; if there are several categories, each also has a subfolder.
        name: file name of the records.
        finish: (record, category) -> complete record; the category of the run's record is None.
    """
    record, scores = run.record, run.scores
    for category, subfolder in category_folders(run, folder).items():
        if subfolder != folder:
            result = finish(category_record(run, record, category), category)
            curves = run.evaluator.results[category].curves
            write_record(subfolder, result, category_rows(scores, category), curves, name)
    finished = finish(record, None)
    write_record(folder, finished, scores, run.evaluator.result.curves, name)
    return finished


def category_folders(run: EvaluatedRun, folder: Path) -> dict[str, Path]:
    """Category -> its folder, which is the run's if there is only one category."""
    names = run.data.categories
    return {n: folder if len(names) == 1 else category_folder(folder, n) for n in names}


def category_rows(scores: pd.DataFrame, category: str) -> pd.DataFrame:
    """The rows of the category; the index remains that of the data set."""
    return scores[scores["category"] == category]


def category_record(run: EvaluatedRun, record: dict[str, Any], category: str) -> dict[str, Any]:
    """The record of one of several categories, like that of a run on this category alone.

    The oracle's epoch is the run's: one model has one best epoch.
    """
    data, evaluator, oracle = run.data, run.evaluator, record["oracle"]
    split, result = data.splits[category], evaluator.results[category]
    curve = evaluator.test_curves.get(category, [])
    checkpoint = record["checkpoint"]
    to_run = os.path.relpath(".", category_folder(".", category))
    own = {
        "data": record["data"]
        | {
            "category": category,
            "group": group(data, [category]),
            "fingerprint": dataset_fingerprint(split, data.root),
            "train_images": sum(s.category == category for s in data.train_set.samples),
            "test_images": count_by_defect(split.test),
        },
        "protocol": record["protocol"]
        | {
            "validation": validation_images(run, [category]),
            "pixels_judged": pixels_evaluated(run, [category]),
        },
        "metrics": result.metrics,
        "undefined": result.undefined,
        "bounds": result.bounds,
        "oracle": next((p for p in curve if oracle and p["epoch"] == oracle["epoch"]), None),
        "test_curve": curve,
        "validation": without_epoch(evaluator.validations.get(category, {})),
        "checkpoint": checkpoint
        and checkpoint | {"path": Path(to_run, checkpoint["path"]).as_posix()},
    }
    return {k: v for k, v in (record | own).items() if k != "categories"}


def save_heatmaps(run: EvaluatedRun, loggers: list[Logger], folder: Path, count: int) -> None:
    """Write and log heatmaps of ``count`` images per category, and write the gallery."""
    images = []
    for category, subfolder in category_folders(run, folder).items():
        images += save_category_heatmaps(run, category, subfolder, count)
    for logger in loggers:
        with warn_on_error(f"{type(logger).__name__}: the test is not logged"):
            log_evaluation(
                logger,
                categories=run.by_category,
                metrics=run.evaluator.result.metrics,
                scores=run.scores,
                images=images,
            )


def save_category_heatmaps(
    run: EvaluatedRun, category: str, folder: Path, count: int
) -> list[ScoredImage]:
    """Write the heatmaps and the gallery of one category; returns the images of the heatmaps."""
    scores = category_rows(run.scores, category)
    examples = []
    for position in choose_examples(scores, count):
        with warn_on_error(f"{scores['path'].iloc[position]}: no heatmap"):
            examples.append(heatmap_image(run, scores, position))
    if examples:
        low, high = run.map_scale or (None, None)
        with warn_on_error(f"{folder}: no heatmaps"):
            write_heatmaps(folder, examples, vmin=low, vmax=high)
    threshold = best_f1_threshold_of_curve(run.evaluator.results[category].curves)
    with warn_on_error(f"{folder}: no gallery"):
        save_gallery(run, folder, threshold if threshold < float("inf") else None, scores)
    return [replace(e, predicted_mask=e.anomaly_map >= threshold) for e in examples]


def heatmap_image(run: EvaluatedRun, scores: pd.DataFrame, position: int) -> ScoredImage:
    """A test image at the networks' size, with its map and the ground truth's small parts."""
    row = int(scores.index[position])
    sample = run.data.split.test[row]
    image = scored_image(run, scores, position, anomaly_maps(run, [row])[0].cpu().numpy())
    if sample.mask is None or image.mask is None:
        return image
    size = load_image(sample.path).size[::-1]
    stored = load_mask(sample.mask, size, sample.path, run.data.test_set.mask_rule)
    return replace(image, mask=with_small_parts(image.mask, np.asarray(stored) >= 128))


def scored_image(
    run: EvaluatedRun, scores: pd.DataFrame, position: int, anomaly_map: np.ndarray
) -> ScoredImage:
    """A test image at the networks' size, by its position in the scores."""
    row = int(scores.index[position])
    sample, item = run.data.split.test[row], run.data.test_set[row]
    has_truth = sample.label == 0 or sample.mask is not None
    return ScoredImage(
        row=position,
        path=scores["path"].iloc[position],
        defect=sample.defect,
        score=scores["score"].iloc[position],
        image=item["image"].permute(1, 2, 0).numpy(),
        mask=item["mask"].numpy() if has_truth else None,
        anomaly_map=anomaly_map,
    )


def map_scale(run: EvaluatedRun) -> tuple[float, float] | None:
    """Map values of the darkest and brightest colour, for all heatmaps of the model.

    The darkest is the median over the drawn images, so that normal regions are dark. None if the
    maps are constant or not finite.
    """
    maps = []
    for category in run.data.categories:
        scores = category_rows(run.scores, category)
        count = run.config["report"]["heatmaps"] or SCALE_IMAGES
        rows = list(scores.index[choose_examples(scores, count)])
        if rows:
            maps.append(anomaly_maps(run, rows).cpu().numpy())
    if not maps:
        return None
    values = np.concatenate(maps)
    low, high = float(np.median(values)), float(values.max())
    return (low, high) if low < high < float("inf") else None


def anomaly_maps(run: EvaluatedRun, rows: Sequence[int]) -> torch.Tensor:
    """The maps (N, H, W) of test images; computed again if the pixel metrics were streamed."""
    if len(run.predictions.maps):
        return run.predictions.maps_at(rows)
    images = torch.stack([run.data.test_set[row]["image"] for row in rows])
    return score_as_tested(run.module, run.trainer, images).maps


def save_gallery(
    run: EvaluatedRun, folder: Path, threshold: float | None, scores: pd.DataFrame
) -> None:
    """Write ``gallery.zip`` with small test images; their number is ``report.gallery``.

    The grey scale of the maps starts at their median, so that normal regions are dark. The
    threshold of map values is for drawing only.
    """
    count = run.config["report"]["gallery"]
    positions = choose_examples(scores, len(scores) if count == "all" else count)
    if not positions:
        return
    rows = [int(row) for row in scores.index[positions]]
    size = fit_within(run.data.image_size, MAP_SIDE)
    batches = []
    for start in range(0, len(rows), BATCH):
        batch = anomaly_maps(run, rows[start : start + BATCH])
        small = F.interpolate(batch.unsqueeze(1), size, mode="area").squeeze(1)
        batches.append(small.cpu().numpy())
    maps = np.concatenate(batches)

    def readable_images() -> Iterator[ScoredImage]:
        for position, row, anomaly_map in zip(positions, rows, maps, strict=True):
            try:
                image = scored_image(run, scores, position, anomaly_map)
            except (UserError, OSError) as error:  # removed since it was evaluated
                path = run.data.split.test[row].path
                log.warning("%s: not in the gallery (%s)", path, one_line(error))
                continue
            yield image

    low, high = float(np.median(maps)), float(maps.max())
    write_gallery(folder, readable_images(), low, high, threshold)
