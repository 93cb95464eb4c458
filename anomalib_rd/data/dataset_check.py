"""Checks of a data set before training: image counts, unreadable files, masks, duplicates."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anomalib_rd.data.images import FORMATS, load_image, load_mask, orientation
from anomalib_rd.data.mask_rules import AUTO, covers_border, has_lost_spots
from anomalib_rd.data.sources.source import Sample, Source, Split
from anomalib_rd.data.sources.unused_files import find_unused, plural
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import printable

SEVERITIES = ERROR, WARNING, NOTE = "error", "warning", "note"


class Counts(NamedTuple):
    """Numbers of training, normal test and defect test images of a category."""

    train: int
    good: int
    defect: int


@dataclass(frozen=True)
class Finding:
    """One problem and its remedy, as one line.

    An ``error`` makes runs fail or their results wrong, a ``warning`` makes metrics undefined or
    less reliable, a ``note`` is information.
    """

    severity: str
    category: str
    text: str
    path: Path | None = None


@dataclass
class CategoryCheck:
    """The result of checking one category.

    Attributes:
        category: name of the category.
        counts: images on disk; None if the layout is broken.
        published: images of the published data set, if it is one.
        masks: number of defect images with a mask.
        soft_masks: number of masks with soft edges, where values above half of white are defect.
            In all other masks every value but the background is defect.
        formats: (width, height, mode as stored) -> number of images.
        findings: problems, errors first.
    """

    category: str
    counts: Counts | None = None
    published: Counts | None = None
    masks: int = 0
    soft_masks: int = 0
    formats: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class DecodedSample:
    """Properties of a decoded image and its mask.

    Attributes:
        format: (width, height, mode as stored); None if the image is unreadable.
        pixel_hash: SHA-256 of size and pixels.
        problems: severity and text of each.
        maximum: largest value, scaled to 8 bit, of an image with more than 8 bits.
        soft: whether the mask has soft edges; None: no mask.
        lost: whether a spot in a soft mask stays below half of white, and so counts as normal.
        ambiguous: see `has_ambiguous_orientation`.
    """

    format: tuple[int, int, str] | None
    pixel_hash: str
    problems: tuple[tuple[str, str], ...] = ()
    maximum: int | None = None
    soft: bool | None = None
    lost: bool = False
    ambiguous: bool = False


def published_counts(source: Source) -> Mapping[str, Counts]:
    """Category -> image counts of the published data set; empty for other data."""
    # Only the class's own attribute: a subclass has different images.
    published: Mapping[str, tuple[int, ...]] = vars(type(source)).get("counts", {})
    on_validation = getattr(source, "train_on_validation", False)
    return {
        category: Counts(train + sum(validation) * on_validation, good, defect)
        for category, (train, good, defect, *validation) in published.items()
    }


def find_missing_categories(source: Source, categories: list[str]) -> list[Finding]:
    """A note if categories of the published data set are not on disk."""
    published = published_counts(source)
    missing = sorted(set(published) - set(categories))
    if not missing or published.keys().isdisjoint(categories):
        return []
    text = f"published, but not in {source.root}: {', '.join(missing)}"
    return [Finding(NOTE, "", text, source.root)]


def count_images(split: Split) -> Counts:
    """Numbers of images in a split."""
    defect = sum(sample.label for sample in split.test)
    return Counts(len(split.train), len(split.test) - defect, defect)


def compare_counts(category: str, counts: Counts, published: Counts | None) -> list[Finding]:
    """An error if the counts differ from the published ones."""
    if published is None or counts == published:
        return []
    kinds = zip(("training", "normal test", "defect test"), counts, published, strict=True)
    wrong = ", ".join(f"{n} {kind} images, not {m}" for kind, n, m in kinds if n != m)
    text = (
        f"{category} is not as published: {wrong}; its results are not comparable: unpack it again,"
        " or rename the folder"
    )
    return [Finding(ERROR, category, text)]


def check_category(
    source: Source,
    category: str,
    step: Callable[[int, int], None] | None = None,
    mask_rule: str = AUTO,
) -> CategoryCheck:
    """Check the images and masks of ``category``, read with one of `masks.MASK_RULES`.

    ``step`` is called after each image with the numbers of checked images and of all images.
    """
    result = CategoryCheck(category, published=published_counts(source).get(category))
    try:
        split = source.split(category)
    except UserError as error:
        result.findings.append(Finding(ERROR, category, str(error)))
        return result
    result.counts = count_images(split)
    result.masks = sum(sample.mask is not None for sample in split.test)
    samples = [*split.train, *split.test]
    decoded = []
    # Decoding and hashing release the interpreter's lock.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for checked in pool.map(partial(decode_sample, mask_rule=mask_rule), samples):
            decoded.append(checked)
            if step is not None:
                step(len(decoded), len(samples))
    result.formats.update(one.format for one in decoded if one.format is not None)
    result.soft_masks = sum(one.soft is True for one in decoded)
    result.findings = [
        *(
            Finding(severity, category, text, sample.path)
            for sample, one in zip(samples, decoded, strict=True)
            for severity, text in one.problems
        ),
        *compare_counts(category, result.counts, result.published),
        *_missing_kinds(category, result.counts),
        *_missing_masks(category, split),
        *_ambiguous_masks(category, samples, decoded),
        *_dark_images(category, decoded),
        *_duplicates(samples, decoded, len(split.train)),
        *(
            Finding(NOTE if kind.expected else WARNING, category, f"{category}: {kind.text}", path)
            for kind in find_unused(source, category, split)
            for path in kind.paths[:1]
        ),
    ]
    result.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return result


def decode_sample(sample: Sample, mask_rule: str = AUTO) -> DecodedSample:
    """Decode and check a sample's image and mask."""
    try:
        image = load_image(sample.path)
        with Image.open(sample.path, formats=FORMATS) as stored:
            mode = stored.mode
    except UserError as error:
        return DecodedSample(None, "", ((ERROR, str(error)),))
    digest = sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    maximum = int(np.asarray(image).max()) if mode[0] in "IF" else None
    decoded = DecodedSample((*image.size, mode), digest, maximum=maximum)
    if sample.mask is None:
        return decoded
    try:
        mask = load_mask(sample.mask, (image.height, image.width), sample.path, mask_rule)
        ambiguous = has_ambiguous_orientation(sample.mask, sample.path)
    except UserError as error:
        return replace(decoded, problems=((ERROR, str(error)),))
    levels = np.asarray(mask)
    defect = levels >= 128
    problems: list[tuple[str, str]] = []
    name = printable(sample.mask)
    if not defect.any():
        text = f"mask {name} is empty: all pixels of {printable(sample.path)} count as normal"
        problems = [(ERROR, f"{text}; draw it again, or delete it")]
    elif defect.all() or covers_border(defect):
        what = "all pixels" if defect.all() else "the entire border of its image"
        problems = [(WARNING, f"mask {name} marks {what} as defect; is black its background?")]
    soft = bool(((levels > 0) & (levels < 255)).any())
    lost = soft and has_lost_spots(levels)
    return replace(decoded, problems=tuple(problems), soft=soft, lost=lost, ambiguous=ambiguous)


def has_ambiguous_orientation(mask: Path, image: Path) -> bool:
    """Whether EXIF rotates only the image or only its mask, and the mask fits either way."""
    if mask.is_dir():
        return False
    orientations = orientation(image), orientation(mask)
    if orientations[0] == orientations[1]:
        return False
    with Image.open(image, formats=FORMATS) as stored:
        # A quarter turn changes the size, unless the image is square.
        return stored.width == stored.height or max(orientations) < 5


def _missing_kinds(category: str, counts: Counts) -> Iterator[Finding]:
    for kind, count in (("normal", counts.good), ("defect", counts.defect)):
        if not count:
            text = f"{category} has no {kind} test images: the metrics will be undefined; add some"
            yield Finding(WARNING, category, text)


def _missing_masks(category: str, split: Split) -> Iterator[Finding]:
    """One warning if no defect image has a mask, else one per defect type with missing masks."""
    defects = [sample for sample in split.test if sample.label]
    unmasked = [sample for sample in defects if sample.mask is None]
    undefined = "the pixel metrics will be undefined, the image metrics will not"
    if unmasked and len(unmasked) == len(defects):
        text = f"{category} has no masks for its {len(defects)} defect images: {undefined}"
        yield Finding(WARNING, category, f"{text}; add them if there are any")
        return
    total = Counter(sample.defect for sample in defects)
    for defect, count in Counter(sample.defect for sample in unmasked).items():
        first = next(sample.path for sample in unmasked if sample.defect == defect)
        text = (
            f"{category}: {count} of {plural(total[defect], f'{defect} image')} without mask, such"
            f" as {printable(first)}: {undefined}; add them, or set metrics.pixels_on=masked"
        )
        yield Finding(WARNING, category, text, first)


def _ambiguous_masks(
    category: str, samples: Iterable[Sample], decoded: Iterable[DecodedSample]
) -> Iterator[Finding]:
    pairs = list(zip(samples, decoded, strict=True))
    if lost := [sample for sample, one in pairs if one.lost]:
        text = (
            f"{category}: {plural(len(lost), 'mask')} with grey spots below half of white, which"
            f" count as normal, such as {printable(lost[0].mask or '')}; if greys are classes, set"
            " data.mask_rule=nonzero"
        )
        yield Finding(NOTE, category, text, lost[0].path)
    if rotated := [sample for sample, one in pairs if one.ambiguous]:
        text = (
            f"{category}: {plural(len(rotated), 'image')} where EXIF data rotate only the image or"
            f" only its mask, such as {printable(rotated[0].path)}: read as if both were drawn"
            " upright; store them without EXIF orientation if that is wrong"
        )
        yield Finding(WARNING, category, text, rotated[0].path)


def _dark_images(category: str, decoded: Iterable[DecodedSample]) -> Iterator[Finding]:
    """A warning if 10, 12 or 14 bits are stored as 16 without scaling: few grey levels remain."""
    maxima = [sample.maximum for sample in decoded if sample.maximum is not None]
    if maxima and max(maxima) < 64:
        text = (
            f"{category}: {len(maxima)} images with more than 8 bits are dark: their largest value"
            f" is read as {max(maxima)} of 255, because 16 bit is 0 to 65535 and float 0 to 1; if"
            " they have fewer bits, scale them to the full range"
        )
        yield Finding(WARNING, category, text)


def _duplicates(
    samples: list[Sample], decoded: Iterable[DecodedSample], train_count: int
) -> Iterator[Finding]:
    same = defaultdict(list)
    for index, one in enumerate(decoded):
        if one.format is not None:
            same[one.pixel_hash].append(index)
    for first, *others in same.values():
        original = samples[first]
        for index in others:
            copy = samples[index]
            if first < train_count <= index:
                severity, why = ERROR, ": one is trained on, the other tested; delete one of them"
            elif original.label != copy.label:
                severity, why = ERROR, ": both normal and defect; delete the wrong one"
            else:
                severity, why = NOTE, ", in the same split; delete one unless intended"
            text = f"{copy.path} has the same pixels as {original.path}{why}"
            yield Finding(severity, copy.category, text, copy.path)
