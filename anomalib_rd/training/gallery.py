"""The gallery that a judged run leaves: its test images with their anomaly maps, small."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from anomalib_rd.errors import UserError
from anomalib_rd.reports.heatmaps import choose_examples
from anomalib_rd.results.files import one_line
from anomalib_rd.results.gallery import MAP_SIDE, Shown, fit_within, write_gallery
from anomalib_rd.training.normals import score_as_tested

if TYPE_CHECKING:
    from anomalib_rd.training.outcome import Outcome

log = logging.getLogger(__name__)

BATCH = 16  # images


def require_counts(gallery: Any, heatmaps: Any) -> None:
    """Refuse config values that are no numbers of images, before anything is trained.

    Raises:
        UserError: less than 0, or of another type; the gallery may be ``all``.
    """
    if gallery != "all" and not _is_count(gallery):
        raise UserError(f"gallery={gallery}: how many test images to keep; give all, 0 or a number")
    if not _is_count(heatmaps):
        raise UserError(f"heatmaps={heatmaps}: how many test images to draw; give 0 or a number")


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
    count = outcome.config["gallery"]
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
) -> Iterator[Shown]:
    for place, anomaly_map in zip(places, maps, strict=True):
        row = int(scores.index[place])
        sample = outcome.data.split.test[row]
        try:
            item = outcome.data.test_set[row]
        except (UserError, OSError) as error:  # gone since it was judged
            log.warning("%s: not in the gallery (%s)", sample.path, one_line(error))
            continue
        has_truth = sample.label == 0 or sample.mask is not None
        yield Shown(
            row=place,
            path=scores["path"].iloc[place],
            image=item["image"].permute(1, 2, 0).numpy(),
            mask=item["mask"].numpy() if has_truth else None,
            anomaly_map=anomaly_map,
        )
