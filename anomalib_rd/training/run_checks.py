"""Checks of a run's data and networks before it trains."""

import logging
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig

from anomalib_rd.components import OWN_PARTS
from anomalib_rd.data import AnomalyDataModule
from anomalib_rd.data.dataset import AnomalyDataset
from anomalib_rd.data.dataset_check import (
    compare_counts,
    count_images,
    has_ambiguous_orientation,
    published_counts,
)
from anomalib_rd.data.fingerprint import find_changed_files, hash_content, hash_files
from anomalib_rd.data.mask_rules import covers_border
from anomalib_rd.data.sources.source import Split
from anomalib_rd.data.sources.unused_files import find_unused, plural
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line, printable
from anomalib_rd.results.sweeps import is_main_process
from anomalib_rd.results.threshold import images_needed
from anomalib_rd.training.module import DistillationModule

log = logging.getLogger(__name__)

MODEL_PARTS = ("teacher", "masking", "fusion", "student")


def check_run(
    module: DistillationModule, data: AnomalyDataModule, model: DictConfig, loss: DictConfig
) -> None:
    """Find errors that would otherwise stop the run later, and warn about suspicious data.

    Args:
        module: not changed.
        data: the images.
        model: config of the networks, whose classes may be the user's own.
        loss: config of the loss, likewise.
    """
    if names := custom_parts({**model, "loss": loss}):
        check_custom_parts(module, data, ", ".join(names))
    try:
        module.configure_optimizers()
    except (ValueError, TypeError) as error:
        raise UserError(f"optimizer, scheduler: {one_line(error)}") from error
    if is_main_process():
        check_test_images(data)
        check_transform(data)
        warn_about_data(data)


def custom_parts(specs: Mapping[Any, Any]) -> list[str]:
    """Key and class of each network or loss from outside this package."""
    keys = {part: f"model.{part}" for part in MODEL_PARTS} | {"loss": "loss"}
    targets = {key: str(specs[name]._target_) for name, key in keys.items() if name in specs}
    return [f"{key} ({target})" for key, target in targets.items() if target not in OWN_PARTS[key]]


def check_custom_parts(module: DistillationModule, data: AnomalyDataModule, names: str) -> None:
    """Run one step with two black images; networks and random numbers are not changed."""
    size = module.tiling.size or data.image_size
    try:
        distiller, loss = deepcopy((module.distiller, module.loss))
        with torch.random.fork_rng(devices=[]):
            output = distiller.train()(torch.zeros(2, 3, *size, dtype=torch.uint8))
            value = loss(*output)
    except Exception as error:  # the user's own code may raise anything
        raise UserError(f"{names}: fails in a trial step: {one_line(error)}") from error
    shapes = [[tuple(f.shape) for f in features] for features in reversed(output)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{names}: the student's features have the shapes {shapes[0]}, the teacher's"
            f" {shapes[1]}"
        )
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ""
        raise UserError(
            f"{names}: the loss must be a tensor of one number that depends on the student's"
            f" features, not {type(value).__name__}{shape}"
        )


def check_test_images(data: AnomalyDataModule) -> None:
    """Read each test image and mask, so that an unreadable one stops the run before the training.

    Decoded images are cached. Warns about masks that mark no pixel, every pixel or the complete
    border, or whose EXIF rotation differs from their image's.
    """
    at = "at {}x{} pixels".format(*data.image_size)
    empty = (
        f"mark no pixel {at}",
        "the defects count as normal; draw them again or delete them",
    )
    full = f"mark all pixels {at}", "is black their background? see `anomalib-rd data check`"
    border = "mark the complete border of the image as defect", "is black their background?"
    rotated = (
        "are rotated by EXIF data but their images are not, or vice versa",
        "both are read as if drawn upright; if that is wrong, save both without EXIF orientation",
    )
    findings: dict[tuple[str, str], list[str]] = {empty: [], full: [], border: [], rotated: []}
    masks = sum(sample.mask is not None for sample in data.test_set.samples)
    with ThreadPoolExecutor() as pool:
        items = pool.map(data.test_set.__getitem__, range(len(data.test_set)))
        for sample, item in zip(data.test_set.samples, items, strict=True):
            if sample.mask is None:
                continue
            mask, path = item["mask"], printable(sample.mask)
            if not mask.any():
                findings[empty].append(path)
            elif mask.all():
                findings[full].append(path)
            elif covers_border(mask.numpy()):
                findings[border].append(path)
            if has_ambiguous_orientation(sample.mask, sample.path):
                findings[rotated].append(path)
    for (fault, advice), paths in findings.items():
        if paths:
            log.warning(
                "%d of %d masks %s, such as %s: %s", len(paths), masks, fault, paths[0], advice
            )


def check_transform(data: AnomalyDataModule) -> None:
    """Apply ``data.transform`` to one training image."""
    if data.transform is None:
        return
    one = AnomalyDataset(data.split.train[:1], data.image_size, data.transform, masks=False)
    try:
        image = one[0]["image"]
    except UserError:
        raise
    except Exception as error:  # the user's own code may raise anything
        path = one.samples[0].path
        raise UserError(f"data.transform: fails on {path}: {one_line(error)}") from error
    shape, expected = tuple(getattr(image, "shape", ())), (3, *data.image_size)
    if shape != expected:
        raise UserError(
            f"data.transform: returns {type(image).__name__} {shape}; it must keep the shape"
            f" {expected} of data.image_size"
        )


def warn_about_data(data: AnomalyDataModule) -> None:
    """Warn about the findings of `anomalib-rd data check` that need no decoding."""
    for category, split in data.splits.items():
        for kind in find_unused(data.source, category, split):
            level = logging.INFO if kind.expected else logging.WARNING
            log.log(level, "%s: %s", category, kind.text)
        published = published_counts(data.source).get(category)
        for finding in compare_counts(category, count_images(split), published):
            log.warning("%s", finding.text)
        for text in find_copies(category, split):
            log.warning("%s", text)
    for category, kinds in masks_by_defect(data).items():
        if any(masks < images for masks, images in kinds.values()):
            parts = ", ".join(f"{kind} {masks} of {n}" for kind, (masks, n) in kinds.items())
            log.warning("%s: defect images with masks: %s (metrics.pixels_on)", category, parts)


def find_copies(category: str, split: Split) -> Iterator[str]:
    """Test images that are copies of training images, or of a test image of the other label."""
    trained = {hash_content(sample.path): sample for sample in split.train}
    normal = {hash_content(s.path): s for s in split.test if not s.label}
    for originals, samples, fault in (
        (trained, split.test, "copied from the training images"),
        (normal, [s for s in split.test if s.label], "both normal and defect"),
    ):
        hashed = [(sample.path, hash_content(sample.path)) for sample in samples]
        copies = [(path, originals[key].path) for path, key in hashed if key in originals]
        if copies:
            copy, original = map(printable, copies[0])
            text = f"{category}: {plural(len(copies), 'test image')} {fault}"
            yield f"{text}, such as {copy} of {original}; delete one of each"


def warn_if_changed(before: Mapping[str, str], data: AnomalyDataModule) -> None:
    """Warn about images that changed during the run, by their `hash_files` before it."""
    trained, others = find_changed_files(before, hash_files(data.split, data.root))
    changed = [*trained, *others]
    if changed:
        log.warning(
            "%d images or masks in %s were changed during the run, such as %s: its results may be"
            " of both versions; run it again",
            len(changed),
            data.root,
            printable(changed[0]),
        )


def masks_by_defect(data: AnomalyDataModule) -> dict[str, dict[str, tuple[int, int]]]:
    """Category -> defect type -> (test images with a mask, all its test images)."""
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for category, split in data.splits.items():
        kinds = counts.setdefault(category, {})
        for sample in split.test:
            if sample.label:
                masks, images = kinds.get(sample.defect, (0, 0))
                kinds[sample.defect] = (masks + (sample.mask is not None), images + 1)
    return counts


def log_possible_rate(
    false_positive_rate: float, train_images: int | None, data: AnomalyDataModule
) -> None:
    """Log the lowest false positive rate that the available normal images allow."""
    rate, needed = false_positive_rate, images_needed(false_positive_rate)
    if data.val_set is not None:
        count, source = len(data.val_set), "held-out"
        advice = "raise validation.fraction (at most 0.5)"
    else:
        count = min(len(data.train_set), train_images or len(data.train_set))
        source, advice = "training", "raise threshold.train_images"
    line = (
        f"threshold.false_positive_rate={rate} needs {needed} normal images; the {count} {source} "
        f"images allow {100 / (count + 1):.2g} %"
    )
    if count < needed:
        log.warning("%s: %s, add images, or choose another rate", line, advice)
    else:
        log.info("%s", line)


# Lightning's Trainer has these attributes, but its type does not declare them: hence Any.


def check_limits(trainer: Any, data: AnomalyDataModule, fit: bool) -> None:
    """Raise UserError if Lightning's limits leave no batch of a stage."""
    for stage, count in batches_per_stage(trainer, data).items():
        name = f"limit_{stage}_batches"
        limit = getattr(trainer, name)
        if limited(limit, count) == 0 and (fit or stage != "train"):
            if trainer.overfit_batches and stage != "test":
                name, limit = "overfit_batches", trainer.overfit_batches
            hint = (
                "; for none, set validation.kind=null and test_during_training=false"
                if stage == "val"
                else ""
            )
            raise UserError(
                f"trainer.{name}={limit}: none of {count} {stage} batches remains; give a number"
                f" from 1, or a share of at least {1 / count:.2g}{hint}"
            )


def limits_in_force(trainer: Any, data: AnomalyDataModule) -> dict[str, Any]:
    """The trainer's arguments that shortened the run, with their values; empty for a full run."""
    if trainer.fast_dev_run:
        return {"fast_dev_run": trainer.fast_dev_run}
    limits: dict[str, Any] = {}
    counts = batches_per_stage(trainer, data)
    if trainer.overfit_batches:
        limits["overfit_batches"] = trainer.overfit_batches
        counts = {"test": counts["test"]}
    for stage, count in counts.items():
        name = f"limit_{stage}_batches"
        if limited(getattr(trainer, name), count) < count:
            limits[name] = getattr(trainer, name)
    if (seconds := elapsed_max_time(trainer)) is not None:
        limits["max_time"] = f"{seconds:g} s"
    return limits


def batches_per_stage(trainer: L.Trainer, data: AnomalyDataModule) -> dict[str, int]:
    """Batches of each stage per process; ``val`` only if there is a validation."""

    def count(items: int, size: int) -> int:
        return math.ceil(math.ceil(items / trainer.world_size) / size)

    counts = {
        "train": count(len(data.train_items), data.train_batch_size),
        "test": count(len(data.test_set), data.test_batch_size),
    }
    validated = [len(data.val_set)] if data.val_set is not None else []
    validated += [len(data.test_set)] if data.test_curve else []
    return counts | ({"val": count(max(validated), data.test_batch_size)} if validated else {})


def limited(limit: int | float, count: int) -> int:
    """Number of batches out of ``count`` under a limit: an int is a number, a float a share."""
    return min(limit, count) if isinstance(limit, int) else int(limit * count)


def elapsed_max_time(trainer: Any) -> float | None:
    """``max_time`` in seconds if it ended the training, else None."""
    if trainer.max_epochs is None or 0 <= trainer.max_epochs <= trainer.current_epoch:
        return None
    for timer in trainer.callbacks:
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None and left <= 0:
            return timer.time_elapsed() + left
    return None
