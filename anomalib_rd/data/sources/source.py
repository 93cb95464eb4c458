"""Samples, splits and sources, and the selection of categories."""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anomalib_rd.data.sources.files import list_images, subfolders
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import expand_home, printable

GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One image: normal with defect type ``"good"`` and label 0, or defective with label 1.

    ``mask`` is a file, a folder of masks to unite, or None.
    """

    path: Path
    category: str
    defect: str
    label: int
    mask: Path | None = None


@dataclass(frozen=True)
class Split:
    """Normal images to train on, normal and defect images to test on."""

    train: list[Sample]
    test: list[Sample]


class Source(Protocol):
    """A data set on disk. ``textures`` names the categories of the texture group."""

    root: Path
    textures: frozenset[str]

    def categories(self) -> list[str]:
        """Names of the categories on disk, sorted."""

    def split(self, category: str) -> Split:
        """The samples of one category, in a fixed order."""


def root_folder(root: object) -> Path:
    """``data.root`` as a path; Hydra reads a numeric name as a number.

    Raises:
        UserError: it is empty, for example because an environment variable is empty.
    """
    text = "" if root is None else str(root)
    if not text.strip():
        raise UserError(
            "data.root is empty; set it, or the environment variable that it refers to, to the"
            " folder of the data"
        )
    return expand_home(text)


def category_names(root: Path, is_category: Callable[[Path], bool]) -> list[str]:
    """Names of the folders directly inside ``root`` that are categories, sorted.

    Raises:
        UserError: a name is not UTF-8, which records and W&B cannot store, or contains ``${``,
            which a config reads as a reference to another value.
    """
    names = [path.name for path in subfolders(root) if is_category(path)]
    for name in names:
        if printable(name) != name:
            raise UserError(f"{root}: the folder name {printable(name)} is not UTF-8; rename it")
        if "${" in name:
            raise UserError(
                f"{root}: the folder name {name} contains '${{', which a config reads as a"
                " reference to another value; rename it"
            )
    return names


def pair_masks(
    images: Iterable[Path], folder: Path, mask_folder: Path, masks: Iterable[Path] | None = None
) -> dict[Path, Path]:
    """Masks of the images in ``folder``; images without a mask are missing from the result.

    A mask has its image's relative path and stem, or the stem and ``_mask``, and any image
    extension.

    Args:
        images: paths of the images.
        folder: contains all of them.
        mask_folder: the folder that corresponds to ``folder``.
        masks: paths below ``mask_folder``; None: every image file there.

    Raises:
        UserError: a mask without image, or two masks of one image.
    """
    unpaired: dict[Path, Path] = {}
    for mask in list_images(mask_folder, True) if masks is None else masks:
        first = unpaired.setdefault(mask.relative_to(mask_folder).with_suffix(""), mask)
        if first != mask:
            raise _two_masks(first, mask)
    pairs = {}
    for image in images:
        stem = image.relative_to(folder).with_suffix("")
        for name in (stem.with_name(f"{stem.name}_mask"), stem):
            if name in unpaired:
                pairs[image] = unpaired.pop(name)
                break
    for image, mask in pairs.items():
        if second := unpaired.get(image.relative_to(folder).with_suffix("")):
            raise _two_masks(second, mask)
    if unpaired:
        orphan = min(unpaired.values())
        raise UserError(
            f"mask {orphan} has no image: expected {orphan.stem.removesuffix('_mask')}.* in"
            f" {folder / orphan.relative_to(mask_folder).parent}; add the image or delete the mask"
            + (f" (and {len(unpaired) - 1} more such masks)" if len(unpaired) > 1 else "")
        )
    return pairs


def _two_masks(first: Path, second: Path) -> UserError:
    return UserError(f"{first} and {second} are masks of one image; merge them, or delete one")


def require_category(category: str, available: Sequence[str], root: Path) -> None:
    """Raise UserError, with the nearest name, unless ``category`` is available."""
    if category in available:
        return
    nearest = difflib.get_close_matches(category, available, n=1, cutoff=0.5)
    raise UserError(
        f"no category '{category}' in {root}"
        + (f", did you mean '{nearest[0]}'?" if nearest else "")
        + f"; set data.category to one of: {', '.join(available)} (or all, textures, objects)"
    )


def select_run_categories(source: Source, wanted: str | Sequence[str], unified: bool) -> list[str]:
    """The categories that one run trains on: one, or several with ``unified``.

    Raises:
        UserError: several without ``unified``, or an error of the functions below.
    """
    categories = (select_unified_categories if unified else select_categories)(source, wanted)
    if len(categories) > 1 and not unified:
        raise UserError(
            f"data.category={wanted}: one run trains one category, but {len(categories)} are"
            " selected; add -m to train one model each, or data.unified=true to train one for all"
        )
    return categories


def select_unified_categories(source: Source, wanted: str | Sequence[str]) -> list[str]:
    """The categories that share one model, see `select_categories`.

    Raises:
        UserError: fewer than two, a name given twice, or an error of `select_categories`.
    """
    names = [wanted] if isinstance(wanted, str) else list(map(str, wanted))
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise UserError(f"data.category: '{name}' is given twice; give each category once")
    selected = select_categories(source, wanted)
    if len(selected) < 2:
        raise UserError(
            f"data.unified=true: data.category={selected[0]} is one category; give several, such as"
            f" data.category={','.join(source.categories()[:2])} or all, or omit data.unified"
        )
    return selected


def select_categories(source: Source, wanted: str | Sequence[str]) -> list[str]:
    """The selected categories in the order of ``wanted``, without repeats.

    Args:
        source: the data set.
        wanted: a name, ``all``, ``textures`` or ``objects``, or a list of these.

    Raises:
        UserError: an unknown name, an empty group or an empty list.
    """
    available = source.categories()
    groups = {
        "all": available,
        "textures": [name for name in available if name in source.textures],
        "objects": [name for name in available if name not in source.textures],
    }
    # A number is a legal folder name, and Hydra reads data.category=1 as an int.
    names = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    selected: list[str] = []
    for name in map(str, names):
        if name not in groups:
            require_category(name, available, source.root)
        elif not groups[name]:
            raise UserError(
                f"data.category={name}: none in {source.root}, which has: {', '.join(available)}"
            )
        selected += groups.get(name, [name])
    if not selected:
        raise UserError(f"data.category is empty; set it to one of: {', '.join(available)}, or all")
    return list(dict.fromkeys(selected))
