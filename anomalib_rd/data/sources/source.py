"""What a dataset layout yields, samples in a train and a test split, and how to choose from it."""

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
    """One image: ``defect`` is ``"good"`` and ``label`` 0 for a normal one; ``mask`` may lack.

    A mask is a file, or a folder of files that are united.
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
    """A dataset on disk. ``textures`` names the categories of the texture group."""

    root: Path
    textures: frozenset[str]

    def categories(self) -> list[str]:
        """Names of the categories found on disk, sorted."""

    def split(self, category: str) -> Split:
        """The samples of one category, in a fixed order."""


def root_folder(root: object) -> Path:
    """A data set's folder, as ``data.root`` says it; a number may be a folder's name.

    Raises:
        UserError: nothing is said, as where an environment variable is empty.
    """
    text = "" if root is None else str(root)
    if not text.strip():
        raise UserError(
            "data.root is empty; set it, or the environment variable that it is taken from, to the "
            "folder of the data"
        )
    return expand_home(text)


def named_folders(root: Path, wanted: Callable[[Path], bool]) -> list[str]:
    """Names of the wanted folders directly inside ``root``, sorted: they become categories.

    Raises:
        UserError: a name that is not UTF-8, which neither records nor W&B can hold, or one with
            ``${``, which a config takes for a reference to another value.
    """
    names = [path.name for path in subfolders(root) if wanted(path)]
    for name in names:
        if printable(name) != name:
            raise UserError(
                f"{root}: the name of the folder {printable(name)} is not UTF-8; rename it"
            )
        if "${" in name:
            raise UserError(
                f"{root}: the name of the folder {name} has '${{', which a config takes for a"
                " reference to another value; rename it"
            )
    return names


def pair_masks(
    images: Iterable[Path], folder: Path, masks: Path, found: Iterable[Path] | None = None
) -> dict[Path, Path]:
    """For the images below ``folder``, their masks below ``masks``.

    A mask lies at its image's relative path, under its stem or its stem and ``_mask``, with any
    image ending. Images without a mask are absent from the result.

    Args:
        images: the images' paths.
        folder: a folder above all of them.
        masks: the folder in the same place above the masks.
        found: the masks; None: every image file below ``masks``.

    Raises:
        UserError: a mask belongs to none of the images, or two belong to one.
    """
    found = list_images(masks, True) if found is None else found
    left: dict[Path, Path] = {}
    for path in found:
        first = left.setdefault(path.relative_to(masks).with_suffix(""), path)
        if first != path:
            raise UserError(two_masks(first, path))
    pairs = {}
    for image in images:
        stem = image.relative_to(folder).with_suffix("")
        for name in (stem.with_name(f"{stem.name}_mask"), stem):
            if name in left:
                pairs[image] = left.pop(name)
                break
    for image in pairs:
        if other := left.get(image.relative_to(folder).with_suffix("")):
            raise UserError(two_masks(other, pairs[image]))
    if left:
        orphan = min(left.values())
        raise UserError(
            f"mask {orphan} has no image: expected {orphan.stem.removesuffix('_mask')}.* in"
            f" {folder / orphan.relative_to(masks).parent}; add the image or delete the mask"
            + (f" (and {len(left) - 1} more such masks)" if len(left) > 1 else "")
        )
    return pairs


def two_masks(one: Path, other: Path) -> str:
    """What is wrong where two files are masks of one image."""
    return f"masks {one} and {other} are of one image; unite them in one file, or delete one"


def require_category(category: str, available: Sequence[str], root: Path) -> None:
    """Raise UserError, naming the nearest category, unless ``category`` is available."""
    if category in available:
        return
    nearest = difflib.get_close_matches(category, available, n=1, cutoff=0.5)
    raise UserError(
        f"no category '{category}' in {root}"
        + (f", did you mean '{nearest[0]}'?" if nearest else "")
        + f"; set data.category to one of: {', '.join(available)} (or all, textures, objects)"
    )


def select_unified_categories(source: Source, wanted: str | Sequence[str]) -> list[str]:
    """The categories of one model that is trained on several, see `select_categories`.

    Raises:
        UserError: fewer than two, one of them named twice, or what `select_categories` refuses.
    """
    names = [wanted] if isinstance(wanted, str) else list(map(str, wanted))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            f"data.category: '{twice[0]}' is named twice; data.unified=true takes a set"
        )
    chosen = select_categories(source, wanted)
    if len(chosen) < 2:
        raise UserError(
            f"data.unified=true: data.category={chosen[0]} is one category; name several, such as "
            f"data.category={','.join(source.categories()[:2])} or all, or leave data.unified out"
        )
    return chosen


def select_run_categories(source: Source, wanted: str | Sequence[str], unified: bool) -> list[str]:
    """The categories that one run trains on: one, or with ``unified`` a set of them.

    Raises:
        UserError: several without ``unified``, or what the selection refuses.
    """
    categories = (select_unified_categories if unified else select_categories)(source, wanted)
    if len(categories) > 1 and not unified:
        raise UserError(
            f"data.category={wanted}: one run trains one category and these are "
            f"{len(categories)}; add -m to train one model each, or data.unified=true to train one "
            "for all"
        )
    return categories


def select_categories(source: Source, wanted: str | Sequence[str]) -> list[str]:
    """The categories that ``wanted`` means, each once, in the order asked for.

    Args:
        source: the dataset.
        wanted: a name, ``all``, ``textures`` or ``objects``, or a list of these.

    Raises:
        UserError: a name that is not there, a group without members, or nothing asked for.
    """
    available = source.categories()
    groups = {
        "all": available,
        "textures": [name for name in available if name in source.textures],
        "objects": [name for name in available if name not in source.textures],
    }
    # A number is a legal folder name, and Hydra reads data.category=1 as an int.
    names = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    chosen: list[str] = []
    for name in map(str, names):
        if name not in groups:
            require_category(name, available, source.root)
        elif not groups[name]:
            raise UserError(
                f"data.category={name}: none in {source.root}, which has: {', '.join(available)}"
            )
        chosen += groups.get(name, [name])
    if not chosen:
        raise UserError(f"data.category is empty; set it to one of: {', '.join(available)}, or all")
    return list(dict.fromkeys(chosen))
