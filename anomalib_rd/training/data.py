"""The images of a run, from its config."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from hydra.utils import instantiate
from omegaconf import DictConfig

from anomalib_rd.components import build
from anomalib_rd.data import (
    AnomalyDataModule,
    ImageCache,
    Sample,
    Source,
)
from anomalib_rd.data.check import (
    compare_counts,
    count_images,
    has_ambiguous_orientation,
    published_counts,
)
from anomalib_rd.data.dataset import AnomalyDataset
from anomalib_rd.data.fingerprint import find_changed_files, hash_content, hash_files
from anomalib_rd.data.masks import AUTO, covers_border
from anomalib_rd.data.sources.source import Split, select_run_categories
from anomalib_rd.data.sources.unused import find_unused, plural
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line, printable
from anomalib_rd.scoring import Tiling
from anomalib_rd.training.module import TEST, TEST_CURVE, VAL

# Which test images the pixel metrics are of: all, and undefined where a mask lacks; or those whose
# pixels are known, normal ones and those with a mask.
ALL_IMAGES, MASKED = PIXELS_ON = ("all", "masked")

log = logging.getLogger(__name__)


def make_data(cfg: DictConfig) -> AnomalyDataModule:
    """The data module of the category that the config names, or with ``unified`` of the set."""
    source: Source = build(cfg.data.source, "data.source")
    unified = cfg.data.get("unified", False)  # the records of older runs lack it
    check_pixels_on(cfg.metrics.pixels_on)
    categories = select_run_categories(source, cfg.data.category, unified)
    tiling = make_tiling(cfg)
    return AnomalyDataModule(
        source=source,
        category=categories,
        image_size=cfg.data.image_size,
        train_batch_size=cfg.data.train_batch_size,
        test_batch_size=cfg.data.test_batch_size,
        num_workers=cfg.data.num_workers,
        transform=instantiate(cfg.data.transform) if cfg.data.transform else None,
        seed=cfg.seed,
        cache=ImageCache() if cfg.speed.image_cache else None,
        val=cfg.validation.kind,
        val_share=cfg.validation.fraction,
        test_curve=cfg.test_during_training,
        mask_rule=cfg.data.get("mask_rule", AUTO),  # the records of older runs lack it
        tiles=tiling.boxes(cfg.data.image_size) if tiling.size else None,
    )


def require_readable(data: AnomalyDataModule) -> None:
    """Read each test image and mask once: an unreadable one is not to be found after the training.

    It is little work, and none again where decoded images are cached. Masks that mark nothing,
    everything or the whole border, or may be turned otherwise than their image, get a warning.

    Raises:
        UserError: naming the file.
    """
    empty, full, inverted, turned = [], [], [], []
    with ThreadPoolExecutor() as pool:
        items = pool.map(data.test_set.__getitem__, range(len(data.test_set)))
        for sample, item in zip(data.test_set.samples, items, strict=True):
            if sample.mask is None:
                continue
            if not item["mask"].any():
                empty.append(sample)
            elif item["mask"].all():
                full.append(sample)
            elif covers_border(item["mask"].numpy()):
                inverted.append(sample)
            if has_ambiguous_orientation(sample.mask, sample.path):
                turned.append(sample)
    at = "at {}x{} pixels".format(*data.image_size)
    for masks, what, then in (
        (
            empty,
            f"mark nothing {at}",
            "the defect counts as normal there; draw them anew, or delete them",
        ),
        (
            full,
            f"mark all pixels {at}",
            "is black their background? `anomalib-rd data check` says more",
        ),
        (
            inverted,
            "mark the whole border of the image as defect",
            "is black their background?",
        ),
        (
            turned,
            "are turned by EXIF data where their image is not, or the other way round",
            "read as if both were drawn upright; store both without EXIF orientation if that is"
            " wrong",
        ),
    ):
        if masks:
            log.warning(
                "%s of %d masks %s, such as %s: %s",
                len(masks),
                sum(sample.mask is not None for sample in data.test_set.samples),
                what,
                printable(masks[0].mask or ""),
                then,
            )


def require_fitting_transform(data: AnomalyDataModule) -> None:
    """Try ``data.transform`` on one training image.

    Raises:
        UserError: it fails, or gives an image of another size.
    """
    if data.transform is None:
        return
    one = AnomalyDataset(data.split.train[:1], data.image_size, data.transform, masks=False)
    try:
        found = one[0]["image"]
    except UserError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise UserError(
            f"data.transform: fails on {one.samples[0].path}: {one_line(error)}"
        ) from error
    shape, wanted = tuple(getattr(found, "shape", ())), (3, *data.image_size)
    if shape != wanted:
        raise UserError(
            f"data.transform: gives {type(found).__name__} {shape} of an image; it must keep the"
            f" shape {wanted}, of data.image_size"
        )


def warn_of_data(data: AnomalyDataModule) -> None:
    """Warn of what `anomalib-rd data check` finds without decoding, in a line for each kind."""
    for category, split in data.splits.items():
        for kind in find_unused(data.source, category, split):
            level = logging.INFO if kind.expected else logging.WARNING
            log.log(level, "%s: %s", category, kind.text)
        published = published_counts(data.source).get(category)
        for finding in compare_counts(category, count_images(split), published):
            log.warning("%s", finding.text)
        for text in copies(category, split):
            log.warning("%s", text)
    for category, kinds in masks_of_kinds(data).items():
        if any(masks < of for masks, of in kinds.values()):
            parts = ", ".join(f"{kind} {masks} of {of}" for kind, (masks, of) in kinds.items())
            log.warning("%s: defect images with masks: %s (metrics.pixels_on)", category, parts)


def warn_if_changed(before: Mapping[str, str], data: AnomalyDataModule) -> None:
    """Warn of images that were changed while the run used them.

    Args:
        before: of `hash_files`, at the run's start.
        data: the run's.
    """
    trained, others = find_changed_files(before, hash_files(data.split, data.root))
    changed = [*trained, *others]
    if changed:
        log.warning(
            "%d images or masks in %s were altered while the run went on, such as %s: its results "
            "may be of both; run it again",
            len(changed),
            data.root,
            printable(changed[0]),
        )


def copies(category: str, split: Split) -> Iterator[str]:
    """Test images that are copies of training images, or of a test image of the other label."""
    trained = {hash_content(sample.path): sample for sample in split.train}
    normal = {hash_content(s.path): s for s in split.test if not s.label}
    pairs = [(s, trained.get(hash_content(s.path))) for s in split.test]
    both = [(s, normal.get(hash_content(s.path))) for s in split.test if s.label]
    for found, why in (
        (pairs, "copied from the training images"),
        (both, "both normal and defect"),
    ):
        wrong = [(one.path, other.path) for one, other in found if other is not None]
        if wrong:
            one, other = map(printable, wrong[0])
            text = f"{category}: {plural(len(wrong), 'test image')} {why}, such as {one} of {other}"
            yield f"{text}; delete one of each"


def make_tiling(cfg: DictConfig) -> Tiling:
    """What the networks see of an image at once; the records of older runs lack it."""
    tiling: Tiling | None = build(cfg.model.get("tiling"), "model.tiling")
    return tiling or Tiling()


def categories_of(data: AnomalyDataModule) -> dict[str, list[str]]:
    """The category of each image that a stage looks at."""

    def names(samples: list[Sample]) -> list[str]:
        return [sample.category for sample in samples]

    test = names(data.split.test)
    held_out = {} if data.val_set is None else {VAL: names(data.val_set.samples)}
    return held_out | {TEST_CURVE: test, TEST: test}


def why_no_masks(data: AnomalyDataModule, pixels_on: str = ALL_IMAGES) -> dict[str, str]:
    """Category -> why pixel metrics are undefined on it; those where they are not are absent.

    Args:
        data: the run's.
        pixels_on: one of `PIXELS_ON`.
    """
    reasons = {}
    for category, kinds in masks_of_kinds(data).items():
        lacking = {kind: (of - masks, of) for kind, (masks, of) in kinds.items() if masks < of}
        every = sum(of for _, of in kinds.values())
        without = sum(count for count, _ in lacking.values())
        if without and (pixels_on == ALL_IMAGES or without == every):
            reason = f"{without} of {every} defect images have no ground-truth mask"
            if len(kinds) > 1 and without < every:
                parts = [f"{kind} {count} of {of}" for kind, (count, of) in lacking.items()]
                reason += f" ({', '.join(parts)})"
            reasons[category] = reason
    return reasons


def masks_of_kinds(data: AnomalyDataModule) -> dict[str, dict[str, tuple[int, int]]]:
    """Category -> defect type -> how many of its test images have a mask, and of how many."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for category, split in data.splits.items():
        kinds = found.setdefault(category, {})
        for sample in split.test:
            if sample.label:
                masks, of = kinds.get(sample.defect, (0, 0))
                kinds[sample.defect] = (masks + (sample.mask is not None), of + 1)
    return found


def known_pixels(data: AnomalyDataModule, pixels_on: str) -> dict[str, list[bool]]:
    """Of each image that a stage looks at, whether its pixels are judged; all of absent stages."""
    if pixels_on == ALL_IMAGES:
        return {}
    known = [sample.label == 0 or sample.mask is not None for sample in data.split.test]
    return {TEST_CURVE: known, TEST: known}


def check_pixels_on(value: object) -> str:
    """Refuse an unknown ``metrics.pixels_on``.

    Raises:
        UserError: naming the choices.
    """
    if value not in PIXELS_ON:
        raise UserError(f"metrics.pixels_on={value}: choose one of {', '.join(PIXELS_ON)}")
    return str(value)
