"""Whether a dataset is whole and sound: every image and mask is decoded, nothing is changed."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_rd.data.counts import Counts, counts_of, published_counts
from anomalib_rd.data.images import FORMATS, load_image, load_mask
from anomalib_rd.data.source import Sample, Source, Split
from anomalib_rd.errors import UserError

SEVERITIES = ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing found, in a line that names the file and says what to do.

    An ``error`` makes runs fail or their results wrong; a ``warning`` leaves metrics undefined or
    weaker; a ``note`` is worth knowing.
    """

    severity: str
    category: str
    text: str
    path: Path | None = None


@dataclass
class Checked:
    """What was seen of one category.

    Attributes:
        category: its name.
        counts: images on disk; None where the layout is broken.
        published: images of the published dataset; None where there is none.
        masks: defect images that have a mask.
        formats: how many images are of which (width, height, mode as stored).
        findings: errors first.
    """

    category: str
    counts: Counts | None = None
    published: Counts | None = None
    masks: int = 0
    formats: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """An image that was decoded: its format, a hash of its pixels, and what is wrong.

    ``highest`` is the highest value of an image deeper than 8 bit, as 8 bit.
    """

    format: tuple[int, int, str] | None
    pixels: str
    problems: tuple[tuple[str, str], ...] = ()
    highest: int | None = None


def examine(
    source: Source, category: str, step: Callable[[int, int], None] | None = None
) -> Checked:
    """Decode every image and mask of ``category`` and compare them.

    Args:
        source: the dataset.
        category: one of its categories.
        step: called after each image with the number of images done and of all of them.
    """
    checked = Checked(category, published=published_counts(source).get(category))
    try:
        split = source.split(category)
    except UserError as error:
        checked.findings.append(Finding(ERROR, category, str(error)))
        return checked
    checked.counts = counts_of(split)
    checked.masks = sum(sample.mask is not None for sample in split.test)
    samples = [*split.train, *split.test]
    seen = []
    # Decoding and hashing let go of the interpreter's lock.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for view in pool.map(look, samples):
            seen.append(view)
            if step is not None:
                step(len(seen), len(samples))
    checked.formats.update(view.format for view in seen if view.format is not None)
    for sample, view in zip(samples, seen, strict=True):
        checked.findings += [Finding(s, category, t, sample.path) for s, t in view.problems]
    checked.findings += [*_count_findings(checked), *_mask_findings(split, category)]
    checked.findings += [*_dark_findings(seen, category)]
    checked.findings += _repeats(samples, seen, len(split.train))
    checked.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return checked


def look(sample: Sample) -> Seen:
    """Decode a sample's image and mask."""
    try:
        image = load_image(sample.path)
        with Image.open(sample.path, formats=FORMATS) as stored:
            mode = stored.mode
    except UserError as error:
        return Seen(None, "", ((ERROR, str(error)),))
    digest = sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    problems: tuple[tuple[str, str], ...] = ()
    if sample.mask is not None:
        try:
            mask = load_mask(sample.mask, (image.height, image.width), sample.path)
            if not (np.asarray(mask) >= 128).any():
                text = f"mask {sample.mask} marks nothing: all pixels of {sample.path} count as"
                problems = ((ERROR, f"{text} normal; draw it anew, or delete it"),)
        except UserError as error:
            problems = ((ERROR, str(error)),)
    highest = int(np.asarray(image).max()) if mode[0] in "IF" else None
    return Seen((*image.size, mode), digest, problems, highest)


def missing_categories(source: Source, categories: list[str]) -> list[Finding]:
    """A note when categories of the published dataset are not on disk."""
    missing = sorted(set(published_counts(source)) - set(categories))
    if not missing or set(published_counts(source)).isdisjoint(categories):
        return []
    text = f"not in {source.root} though published: {', '.join(missing)}"
    return [Finding(NOTE, "", text, source.root)]


def _count_findings(checked: Checked) -> Iterator[Finding]:
    counts, published = checked.counts, checked.published
    assert counts is not None
    if published is not None and counts != published:
        parts = zip(
            ("training", "normal test", "defect test"),
            (counts.train, counts.good, counts.defect),
            (published.train, published.good, published.defect),
            strict=True,
        )
        wrong = ", ".join(f"{n} {kind} images, not {due}" for kind, n, due in parts if n != due)
        text = (
            f"{checked.category} is not as published: {wrong}; its results compare with no others:"
            " unpack it again, or give the folder another name"
        )
        yield Finding(ERROR, checked.category, text)
    for kind, count in (("normal", counts.good), ("defect", counts.defect)):
        if not count:
            text = f"{checked.category} has no {kind} test images: the metrics will be undefined"
            yield Finding(WARNING, checked.category, f"{text}; add some")


def _mask_findings(split: Split, category: str) -> list[Finding]:
    """Defect images without mask: one warning for all, or one for each of a few."""
    defects = [sample for sample in split.test if sample.label]
    without = [sample for sample in defects if sample.mask is None]
    undefined = "the pixel metrics will be undefined, the image metrics not"
    if without and len(without) == len(defects):
        text = f"{category} has no masks for its {len(defects)} defect images: {undefined}"
        return [Finding(WARNING, category, f"{text}; add them if there are any")]
    return [
        Finding(WARNING, category, f"{s.path} has no mask: {undefined}; add it", s.path)
        for s in without
    ]


def _dark_findings(seen: list[Seen], category: str) -> Iterator[Finding]:
    """Of 10, 12 or 14 bit, stored as 16 without being scaled: few of the 256 levels are left."""
    highest = [view.highest for view in seen if view.highest is not None]
    if highest and max(highest) < 64:
        text = (
            f"{category}: the highest value of its {len(highest)} images deeper than 8 bit is read"
            f" as {max(highest)} of 255, for 16 bit mean 0 to 65535 and float 0 to 1; were they"
            " stored with fewer bits? scale them to the whole range"
        )
        yield Finding(WARNING, category, text)


def _repeats(samples: list[Sample], seen: list[Seen], trained: int) -> Iterator[Finding]:
    """Images of the same pixels, by what they are used for."""
    same = defaultdict(list)
    for index, view in enumerate(seen):
        if view.format is not None:
            same[view.pixels].append(index)
    for places in same.values():
        first = samples[places[0]]
        for index in places[1:]:
            other = samples[index]
            text = f"{other.path} shows the same pixels as {first.path}"
            if places[0] < trained <= index:
                severity, why = ERROR, ": tested on what was trained on; delete one of them"
            elif first.label != other.label:
                severity, why = ERROR, ": both normal and defect; delete the wrong one"
            else:
                severity, why = NOTE, ", in the same part of the data; delete one unless meant"
            yield Finding(severity, other.category, text + why, other.path)
