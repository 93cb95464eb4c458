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
from anomalib_rd.training.evaluation import score_as_tested
from anomalib_rd.training.run_record import (
    EvaluatedRun,
    count_by_defect,
    group,
    pixels_evaluated,
    validation_images,
    without_epoch,
)

BATCH = 16  # images
SCALE_IMAGES = 8
"""Images that give the scale of the heatmaps if none are drawn."""

log = logging.getLogger(__name__)


@contextmanager
def warn_on_error(consequence: str) -> Iterator[None]:
    """Make errors warnings: the metrics are known, and must not be lost for want of a picture."""
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
    """Write scores, curves and, last, the record; with several categories for each of them too.

    Args:
        run: the evaluated run.
        folder: where to write; each of several categories has a subfolder.
        name: of the records' files.
        finish: completes a record; it also gets the category, None for the run's.

    Returns:
        The run's record.
    """
    record, scores = run.record, run.scores
    for category, subfolder in category_folders(run, folder).items():
        if subfolder != folder:
            own = finish(category_record(run, record, category), category)
            curves = run.evaluator.results[category].curves
            write_record(subfolder, own, category_rows(scores, category), curves, name)
    finished = finish(record, None)
    write_record(folder, finished, scores, run.evaluator.result.curves, name)
    return finished


def category_folders(run: EvaluatedRun, folder: Path) -> dict[str, Path]:
    """The folder of each category; the run's own for a single one."""
    names = run.data.categories
    return {n: folder if len(names) == 1 else category_folder(folder, n) for n in names}


def category_rows(scores: pd.DataFrame, category: str) -> pd.DataFrame:
    """The category's rows; their index is still the one in the data set."""
    return scores[scores["category"] == category]


def category_record(run: EvaluatedRun, record: dict[str, Any], category: str) -> dict[str, Any]:
    """The record of one of several categories, like that of a run of it alone.

    Its oracle is at the epoch of the run's: one model has one best epoch.
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
    """Write heatmaps and gallery of one category, and return the heatmaps' images."""
    scores = category_rows(run.scores, category)
    examples = []
    for row in scores.index[choose_examples(scores, count)]:
        with warn_on_error(f"{scores['path'][row]}: no heatmap"):
            examples.append(make_example(run, scores, row))
    if examples:
        low, high = run.map_scale or (None, None)
        with warn_on_error(f"{folder}: no heatmaps"):
            write_heatmaps(folder, examples, vmin=low, vmax=high)
    threshold = best_f1_threshold_of_curve(run.evaluator.results[category].curves)
    with warn_on_error(f"{folder}: no gallery"):
        save_gallery(run, folder, threshold if threshold < float("inf") else None, scores)
    return [replace(e, predicted_mask=e.anomaly_map >= threshold) for e in examples]


def make_example(run: EvaluatedRun, scores: pd.DataFrame, row: int) -> ScoredImage:
    """A test image as the networks saw it, with its map and ground truth."""
    sample, item = run.data.split.test[row], run.data.test_set[row]
    mask = item["mask"].numpy() if sample.label == 0 or sample.mask is not None else None
    if mask is not None and sample.mask is not None:
        size = load_image(sample.path).size[::-1]
        stored = load_mask(sample.mask, size, sample.path, run.data.test_set.mask_rule)
        mask = with_small_parts(mask, np.asarray(stored) >= 128)
    return ScoredImage(
        path=scores["path"][row],
        defect=sample.defect,
        score=scores["score"][row],
        image=item["image"].permute(1, 2, 0).numpy(),
        mask=mask,
        anomaly_map=anomaly_maps(run, [row])[0].cpu().numpy(),
    )


def map_scale(run: EvaluatedRun) -> tuple[float, float] | None:
    """Map values of the darkest and brightest colour, for all heatmaps of the model.

    From the median up, so that normal regions are dark; of the images that are drawn, or would
    be. None if they have no range.
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
    """Write ``gallery.zip``, with as many small test images as the config asks for.

    The scale of the maps begins at their median, so that normal regions are dark. The threshold is
    a map value for drawing.
    """
    count = run.config["report"]["gallery"]
    positions = choose_examples(scores, len(scores) if count == "all" else count)
    if not positions:
        return
    maps = small_maps(run, [int(row) for row in scores.index[positions]])
    low, high = float(np.median(maps)), float(maps.max())
    write_gallery(folder, _gallery_images(run, scores, positions, maps), low, high, threshold)


def small_maps(run: EvaluatedRun, rows: Sequence[int]) -> np.ndarray:
    """The maps of test images by area means at the gallery's size: float32 (N, H', W')."""
    size = fit_within(run.data.image_size, MAP_SIDE)
    small = []
    for start in range(0, len(rows), BATCH):
        maps = anomaly_maps(run, rows[start : start + BATCH])
        small.append(F.interpolate(maps.unsqueeze(1), size, mode="area").squeeze(1).cpu().numpy())
    return np.concatenate(small)


def _gallery_images(
    run: EvaluatedRun, scores: pd.DataFrame, positions: Sequence[int], maps: np.ndarray
) -> Iterator[ScoredImage]:
    for position, anomaly_map in zip(positions, maps, strict=True):
        row = int(scores.index[position])
        sample = run.data.split.test[row]
        try:
            item = run.data.test_set[row]
        except (UserError, OSError) as error:  # removed since it was evaluated
            log.warning("%s: not in the gallery (%s)", sample.path, one_line(error))
            continue
        has_truth = sample.label == 0 or sample.mask is not None
        yield ScoredImage(
            row=position,
            path=scores["path"].iloc[position],
            image=item["image"].permute(1, 2, 0).numpy(),
            mask=item["mask"].numpy() if has_truth else None,
            anomaly_map=anomaly_map,
        )
