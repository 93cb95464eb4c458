"""The files that an evaluated run writes: record, scores, curves, heatmaps, gallery."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from anomalib_rd.training.normals import score_as_tested
from anomalib_rd.training.run_record import Outcome, by_defect, group, pixels_judged, validation

if TYPE_CHECKING:
    from anomalib_rd.training.run_record import Outcome

log = logging.getLogger(__name__)

BATCH = 16  # images


def require_counts(gallery: Any, heatmaps: Any) -> None:
    """Refuse config values that are no numbers of images, before anything is trained.

    Raises:
        UserError: less than 0, or of another type; the gallery may be ``all``.
    """
    if gallery != "all" and not _is_count(gallery):
        raise UserError(
            f"report.gallery={gallery}: how many test images to keep; give all, 0 or a number"
        )
    if not _is_count(heatmaps):
        raise UserError(
            f"report.heatmaps={heatmaps}: how many test images to draw; give 0 or a number"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def leave_gallery(
    outcome: "Outcome", run_dir: Path, threshold: float | None, scores: pd.DataFrame
) -> None:
    """Write ``gallery.zip``: of all test images, or of as many as the config says.

    The scale of the maps is from their median up, so that what is as usual is drawn dark.

    Args:
        outcome: what was judged.
        run_dir: where to write.
        threshold: a map value for drawing, None where there is none.
        scores: the rows of ``outcome.scores`` to show, with their index there.
    """
    count = outcome.config["report"]["gallery"]
    places = choose_examples(scores, len(scores) if count == "all" else count)
    if not places:
        return
    maps = small_maps(outcome, [int(row) for row in scores.index[places]])
    low, high = float(np.median(maps)), float(maps.max())
    shown = _shown(outcome, scores, places, maps)
    write_gallery(run_dir, shown, low, high, threshold)


def small_maps(outcome: "Outcome", rows: Sequence[int]) -> np.ndarray:
    """The maps of test images by area means at the gallery's size: float32 (N, H', W').

    Where the pixel metrics were streamed no maps were kept: the images are scored once more.
    """
    size = fit_within(outcome.data.image_size, MAP_SIDE)
    small = []
    for start in range(0, len(rows), BATCH):
        maps = anomaly_maps(outcome, rows[start : start + BATCH])
        small.append(F.interpolate(maps.unsqueeze(1), size, mode="area").squeeze(1).cpu().numpy())
    return np.concatenate(small)


def anomaly_maps(outcome: "Outcome", rows: Sequence[int]) -> torch.Tensor:
    """The maps (N, H, W) of test images: those of the test or, where none were kept, made again."""
    module = outcome.module
    assert module.predictions is not None
    if len(module.predictions.maps):
        return module.predictions.maps_at(rows)
    images = torch.stack([outcome.data.test_set[row]["image"] for row in rows])
    return score_as_tested(module, outcome.trainer, images).maps


def _shown(
    outcome: "Outcome", scores: pd.DataFrame, places: Sequence[int], maps: np.ndarray
) -> Iterator[ScoredImage]:
    for place, anomaly_map in zip(places, maps, strict=True):
        row = int(scores.index[place])
        sample = outcome.data.split.test[row]
        try:
            item = outcome.data.test_set[row]
        except (UserError, OSError) as error:  # gone since it was judged
            log.warning("%s: not in the gallery (%s)", sample.path, one_line(error))
            continue
        has_truth = sample.label == 0 or sample.mask is not None
        yield ScoredImage(
            row=place,
            path=scores["path"].iloc[place],
            image=item["image"].permute(1, 2, 0).numpy(),
            mask=item["mask"].numpy() if has_truth else None,
            anomaly_map=anomaly_map,
        )


DRAWN = 8
"""Images that the scale of the heatmaps is from where none are drawn."""


def leave_record(outcome: Outcome, run_dir: Path) -> None:
    """Write scores, curves and, last, the result."""
    leave_results(outcome, run_dir, RESULT, lambda result, _: result)


def leave_results(
    outcome: Outcome,
    run_dir: Path,
    name: str,
    finished: Callable[[dict[str, Any], str | None], dict[str, Any]],
) -> dict[str, Any]:
    """Write records, scores and curves: of several categories each one's, and the run's last.

    Args:
        outcome: what was judged.
        run_dir: where to write; each of several categories has a folder in it.
        name: of the records' files.
        finished: makes the record of a result and its category, None for the run's.

    Returns:
        The run's record.
    """
    result, scores, judged = outcome.result, outcome.scores, outcome.module.judged
    for category, folder in folders(outcome, run_dir).items():
        if folder != run_dir:
            record = finished(result_of(outcome, result, category), category)
            own = of_category(scores, category)
            write_record(folder, record, own, judged[category].curves, name)
    record = finished(result, None)
    write_record(run_dir, record, scores, outcome.module.judgement.curves, name)
    return record


def folders(outcome: Outcome, run_dir: Path) -> dict[str, Path]:
    """Where what is of each category goes: of a single one into the run's own folder."""
    names = outcome.data.categories
    return {n: run_dir if len(names) == 1 else category_folder(run_dir, n) for n in names}


def of_category(scores: pd.DataFrame, category: str) -> pd.DataFrame:
    """The category's rows; their index is still the place in the data set."""
    return scores[scores["category"] == category]


def result_of(outcome: Outcome, result: dict[str, Any], category: str) -> dict[str, Any]:
    """The record of one of several categories, as a run of it alone would leave it.

    Its oracle is at the epoch of the run's: one model has one best epoch.
    """
    data, module = outcome.data, outcome.module
    split, judgement = data.splits[category], module.judged[category]
    curve, oracle = module.curves.get(category, []), result["oracle"]
    looked = module.validations.get(category, {})
    kept = result["checkpoint"]
    place = os.path.relpath(".", category_folder(".", category))
    own = {
        "data": result["data"]
        | {
            "category": category,
            "group": group(data, [category]),
            "fingerprint": dataset_fingerprint(split, data.root),
            "train_images": sum(s.category == category for s in data.train_set.samples),
            "test_images": by_defect(split.test),
        },
        "protocol": result["protocol"]
        | {
            "validation": validation(outcome, [category]),
            "pixels_judged": pixels_judged(outcome, [category]),
        },
        "metrics": judgement.metrics,
        "undefined": judgement.undefined,
        "bounds": judgement.bounds,
        "oracle": next((p for p in curve if oracle and p["epoch"] == oracle["epoch"]), None),
        "test_curve": curve,
        "validation": {k: v for k, v in looked.items() if k != "epoch"} or None,
        "checkpoint": kept and kept | {"path": Path(place, kept["path"]).as_posix()},
    }
    return {k: v for k, v in (result | own).items() if k != "categories"}


def show_images(outcome: Outcome, loggers: list[Logger], run_dir: Path, count: int) -> None:
    """Draw heatmaps of ``count`` test images a category, spread over its defects, and log them.

    All test images, small, go into the gallery.
    """
    images = []
    for category, folder in folders(outcome, run_dir).items():
        images += draw(outcome, category, folder, count)
    for logger in loggers:
        with contained(f"{type(logger).__name__}: the test is not logged"):
            log_evaluation(
                logger,
                categories=outcome.by_category,
                metrics=outcome.module.judgement.metrics,
                scores=outcome.scores,
                images=images,
            )


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Make a warning of an error: the metrics are known, and are not to be lost to a picture.

    Args:
        what: is lacking then.
    """
    try:
        yield
    except Exception as error:
        log.warning("%s (%s)", what, one_line(error))
        log.debug("", exc_info=True)


def map_scale(outcome: Outcome) -> tuple[float, float] | None:
    """Map values of the darkest and brightest colour, for all heatmaps of the model.

    From the median up, so that what is as usual is drawn dark; of the images that are drawn, or
    would be. None where they have no range.
    """
    maps = []
    for category in outcome.data.categories:
        scores = of_category(outcome.scores, category)
        count = outcome.config["report"]["heatmaps"] or DRAWN
        rows = list(scores.index[choose_examples(scores, count)])
        if rows:
            maps.append(anomaly_maps(outcome, rows).cpu().numpy())
    if not maps:
        return None
    drawn = np.concatenate(maps)
    low, high = float(np.median(drawn)), float(drawn.max())
    return (low, high) if low < high < float("inf") else None


def draw(outcome: Outcome, category: str, folder: Path, count: int) -> list[ScoredImage]:
    """Leave the heatmaps and the gallery of one category; gives what was drawn."""
    scores = of_category(outcome.scores, category)
    chosen = scores.index[choose_examples(scores, count)]
    examples = []
    for row in chosen:
        with contained(f"{scores['path'][row]}: no heatmap"):
            examples.append(example(outcome, scores, row))
    if examples:
        low, high = outcome.map_scale or (None, None)
        with contained(f"{folder}: no heatmaps"):
            write_heatmaps(folder, examples, vmin=low, vmax=high)
    threshold = best_f1_threshold_of_curve(outcome.module.judged[category].curves)
    with contained(f"{folder}: no gallery"):
        leave_gallery(outcome, folder, threshold if threshold < float("inf") else None, scores)
    return [replace(e, predicted_mask=e.anomaly_map >= threshold) for e in examples]


def example(outcome: Outcome, scores: pd.DataFrame, row: int) -> ScoredImage:
    """A test image as it was seen, with its map and ground truth."""
    sample, item = outcome.data.split.test[row], outcome.data.test_set[row]
    mask = item["mask"].numpy() if sample.label == 0 or sample.mask is not None else None
    if mask is not None and sample.mask is not None:
        size = load_image(sample.path).size[::-1]
        stored = load_mask(sample.mask, size, sample.path, outcome.data.test_set.mask_rule)
        mask = with_small_parts(mask, np.asarray(stored) >= 128)
    return ScoredImage(
        path=scores["path"][row],
        defect=sample.defect,
        score=scores["score"][row],
        image=item["image"].permute(1, 2, 0).numpy(),
        mask=mask,
        anomaly_map=anomaly_maps(outcome, [row])[0].cpu().numpy(),
    )
