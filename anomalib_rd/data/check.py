"""Checks of a data set before training: counts, broken files, masks, leaks."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_rd.data.images import FORMATS, load_image, load_mask, orientation
from anomalib_rd.data.masks import AUTO, covers_border, lost_spots
from anomalib_rd.data.sources.source import Sample, Source, Split
from anomalib_rd.data.sources.unused import find_unused, plural
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import printable


@dataclass(frozen=True)
class Counts:
    """Images of a category: normal ones to train on, normal and defect ones to test on."""

    train: int
    good: int
    defect: int


# Normal images to train on, normal test images, defect images; in LOCO and AD 2 first of all the
# normal images of the validation folder.
_MVTEC_AD = {
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "tile": (230, 33, 84),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "wood": (247, 19, 60),
    "zipper": (240, 32, 119),
}
_VISA = {
    "candle": (900, 100, 100),
    "capsules": (542, 60, 100),
    "cashew": (450, 50, 100),
    "chewinggum": (453, 50, 100),
    "fryum": (450, 50, 100),
    "macaroni1": (900, 100, 100),
    "macaroni2": (900, 100, 100),
    "pcb1": (904, 100, 100),
    "pcb2": (901, 100, 100),
    "pcb3": (905, 101, 100),
    "pcb4": (904, 101, 100),
    "pipe_fryum": (450, 50, 100),
}
_BTAD = {"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)}
_MPDD = {
    "bracket_black": (289, 32, 47),
    "bracket_brown": (185, 26, 51),
    "bracket_white": (110, 30, 30),
    "connector": (128, 30, 14),
    "metal_plate": (54, 26, 71),
    "tubes": (122, 32, 69),
}
_LOCO = {
    "breakfast_box": (62, 351, 102, 83 + 90),
    "juice_bottle": (54, 335, 94, 142 + 94),
    "pushpins": (69, 372, 138, 91 + 81),
    "screw_bag": (60, 360, 122, 137 + 82),
    "splicing_connectors": (60, 360, 119, 108 + 85),
}
_MVTEC_AD_2 = {
    "can": (46, 412, 72, 90),
    "fabric": (43, 387, 66, 90),
    "fruit_jelly": (37, 263, 20, 60),
    "rice": (35, 313, 42, 90),
    "sheet_metal": (19, 137, 24, 90),
    "vial": (41, 291, 35, 105),
    "wallplugs": (33, 293, 60, 90),
    "walnuts": (48, 432, 60, 90),
}
# By the name of the class itself: a class derived from it holds other images.
_PLAIN = {"MVTecAD": _MVTEC_AD, "VisA": _VISA, "BTAD": _BTAD, "MPDD": _MPDD}
_WITH_VALIDATION = {"MVTecLOCO": _LOCO, "MVTecAD2": _MVTEC_AD_2}


def published_counts(source: Source) -> Mapping[str, Counts]:
    """For each category of the published dataset what it holds; nothing for one's own images."""
    name = type(source).__name__
    if name in _WITH_VALIDATION:
        table = _WITH_VALIDATION.get(name, {})
        extra = int(getattr(source, "train_on_validation", False))
        return {
            category: Counts(train + extra * validation, good, defect)
            for category, (validation, train, good, defect) in table.items()
        }
    return {category: Counts(*counts) for category, counts in _PLAIN.get(name, {}).items()}


def count_images(split: Split) -> Counts:
    """What is on disk."""
    defect = sum(sample.label for sample in split.test)
    return Counts(len(split.train), len(split.test) - defect, defect)


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
class CategoryCheck:
    """What was seen of one category.

    Attributes:
        category: its name.
        counts: images on disk; None where the layout is broken.
        published: images of the published dataset; None where there is none.
        masks: defect images that have a mask.
        soft_masks: those of them with soft edges: above half of white is defect. In the others all
            but the background is.
        formats: how many images are of which (width, height, mode as stored).
        findings: errors first.
    """

    category: str
    counts: Counts | None = None
    published: Counts | None = None
    masks: int = 0
    soft_masks: int = 0
    formats: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """An image that was decoded: its format, a hash of its pixels, and what is wrong.

    Attributes:
        highest: the highest value of an image deeper than 8 bit, as 8 bit.
        soft: whether its mask has soft edges, of which half of white is the limit; None: no mask.
        lost: whether a spot of such a mask stays below half of white, so that it counts as normal.
        doubtful: whether image or mask is turned by EXIF data, and both ways would fit.
    """

    format: tuple[int, int, str] | None
    pixels: str
    problems: tuple[tuple[str, str], ...] = ()
    highest: int | None = None
    soft: bool | None = None
    lost: bool = False
    doubtful: bool = False


def check_category(
    source: Source,
    category: str,
    step: Callable[[int, int], None] | None = None,
    mask_rule: str = AUTO,
) -> CategoryCheck:
    """Decode every image and mask of ``category`` and compare them.

    Args:
        source: the dataset.
        category: one of its categories.
        step: called after each image with the number of images done and of all of them.
        mask_rule: which values of a mask are defect, see `anomalib_rd.data.masks`.
    """
    checked = CategoryCheck(category, published=published_counts(source).get(category))
    try:
        split = source.split(category)
    except UserError as error:
        checked.findings.append(Finding(ERROR, category, str(error)))
        return checked
    checked.counts = count_images(split)
    checked.masks = sum(sample.mask is not None for sample in split.test)
    samples = [*split.train, *split.test]
    seen = []
    # Decoding and hashing let go of the interpreter's lock.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for view in pool.map(partial(look, mask_rule=mask_rule), samples):
            seen.append(view)
            if step is not None:
                step(len(seen), len(samples))
    checked.formats.update(view.format for view in seen if view.format is not None)
    for sample, view in zip(samples, seen, strict=True):
        checked.findings += [Finding(s, category, t, sample.path) for s, t in view.problems]
    checked.findings += compare_counts(category, checked.counts, checked.published)
    checked.findings += _kind_findings(category, checked.counts)
    checked.findings += _mask_findings(split, category)
    checked.soft_masks = sum(view.soft is True for view in seen)
    checked.findings += _doubtful_masks(samples, seen, category)
    checked.findings += [*_dark_findings(seen, category)]
    checked.findings += _repeats(samples, seen, len(split.train))
    checked.findings += left_out_findings(source, category, split)
    checked.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return checked


def look(sample: Sample, mask_rule: str = AUTO) -> Seen:
    """Decode a sample's image and mask."""
    try:
        image = load_image(sample.path)
        with Image.open(sample.path, formats=FORMATS) as stored:
            mode = stored.mode
    except UserError as error:
        return Seen(None, "", ((ERROR, str(error)),))
    digest = sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    highest = int(np.asarray(image).max()) if mode[0] in "IF" else None
    seen = Seen((*image.size, mode), digest, highest=highest)
    if sample.mask is None:
        return seen
    try:
        mask = load_mask(sample.mask, (image.height, image.width), sample.path, mask_rule)
        levels = np.asarray(mask)
        defect = levels >= 128
        doubtful = has_ambiguous_orientation(sample.mask, sample.path)
    except UserError as error:
        return replace(seen, problems=((ERROR, str(error)),))
    problems: tuple[tuple[str, str], ...] = ()
    if not defect.any():
        text = f"mask {printable(sample.mask)} marks nothing: all pixels of"
        text += f" {printable(sample.path)} count as normal; draw it anew, or delete it"
        problems = ((ERROR, text),)
    elif defect.all():
        text = f"mask {printable(sample.mask)} marks all pixels as defect; is black its background?"
        problems = ((WARNING, text),)
    elif covers_border(defect):
        text = f"mask {printable(sample.mask)} marks the whole border of its image as defect; is"
        text += " black its background?"
        problems = ((WARNING, text),)
    soft = bool(((levels > 0) & (levels < 255)).any())
    return replace(
        seen, problems=problems, soft=soft, lost=soft and lost_spots(levels), doubtful=doubtful
    )


def has_ambiguous_orientation(mask: Path, image: Path) -> bool:
    """Whether a mask would fit its image as it is stored too, and only one of them is turned."""
    if mask.is_dir():
        return False
    turns = orientation(image), orientation(mask)
    if turns[0] == turns[1]:
        return False
    with Image.open(image, formats=FORMATS) as one:
        # A quarter turn shows in the sizes, unless the image is square.
        return one.width == one.height or max(turns) < 5


def left_out_findings(source: Source, category: str, split: Split) -> list[Finding]:
    """What lies among the category's images and is not used."""
    return [
        Finding(NOTE if kind.expected else WARNING, category, f"{category}: {kind.text}", path)
        for kind in find_unused(source, category, split)
        for path in kind.paths[:1]
    ]


def find_missing_categories(source: Source, categories: list[str]) -> list[Finding]:
    """A note when categories of the published dataset are not on disk."""
    missing = sorted(set(published_counts(source)) - set(categories))
    if not missing or set(published_counts(source)).isdisjoint(categories):
        return []
    text = f"not in {source.root} though published: {', '.join(missing)}"
    return [Finding(NOTE, "", text, source.root)]


def compare_counts(category: str, counts: Counts, published: Counts | None) -> Iterator[Finding]:
    """An error where the counts are not the published ones."""
    if published is not None and counts != published:
        parts = zip(
            ("training", "normal test", "defect test"),
            (counts.train, counts.good, counts.defect),
            (published.train, published.good, published.defect),
            strict=True,
        )
        wrong = ", ".join(f"{n} {kind} images, not {due}" for kind, n, due in parts if n != due)
        text = (
            f"{category} is not as published: {wrong}; its results compare with no others:"
            " unpack it again, or give the folder another name"
        )
        yield Finding(ERROR, category, text)


def _kind_findings(category: str, counts: Counts) -> Iterator[Finding]:
    """A warning where all test images are of one kind."""
    for kind, count in (("normal", counts.good), ("defect", counts.defect)):
        if not count:
            text = f"{category} has no {kind} test images: the metrics will be undefined"
            yield Finding(WARNING, category, f"{text}; add some")


def _mask_findings(split: Split, category: str) -> list[Finding]:
    """Defect images without mask: one warning for all, or one for each defect type."""
    defects = [sample for sample in split.test if sample.label]
    without = [sample for sample in defects if sample.mask is None]
    undefined = "the pixel metrics will be undefined, the image metrics not"
    if without and len(without) == len(defects):
        text = f"{category} has no masks for its {len(defects)} defect images: {undefined}"
        return [Finding(WARNING, category, f"{text}; add them if there are any")]
    findings = []
    for kind in dict.fromkeys(sample.defect for sample in without):
        lacking = [sample.path for sample in without if sample.defect == kind]
        every = sum(sample.defect == kind for sample in defects)
        text = (
            f"{category}: {len(lacking)} of {plural(every, f'{kind} image')} without mask, such as"
            f" {printable(lacking[0])}: {undefined}; add them, or set metrics.pixels_on=masked"
        )
        findings.append(Finding(WARNING, category, text, lacking[0]))
    return findings


def _doubtful_masks(samples: list[Sample], seen: list[Seen], category: str) -> Iterator[Finding]:
    """Masks that may be read otherwise than they were meant, in a line for each kind."""
    pairs = list(zip(samples, seen, strict=True))
    lost = [sample for sample, view in pairs if view.lost]
    if lost:
        text = (
            f"{category}: {plural(len(lost), 'mask')} with grey spots below half of white, which"
            f" count as normal, such as {printable(lost[0].mask or '')}; if greys are classes, set"
            " data.mask_rule=nonzero"
        )
        yield Finding(NOTE, category, text, lost[0].path)
    turned = [sample for sample, view in pairs if view.doubtful]
    if turned:
        text = (
            f"{category}: {plural(len(turned), 'image')} or mask turned by EXIF data, where its mask"
            f" or image is not, such as {printable(turned[0].path)}: read as if both were drawn"
            " upright; store them without EXIF orientation if that is wrong"
        )
        yield Finding(WARNING, category, text, turned[0].path)


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
