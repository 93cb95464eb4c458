"""What lies among a category's images and is not used, a line for each kind."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from anomalib_rd.data.images import FORMATS
from anomalib_rd.data.sources.files import (
    Found,
    count_extensions,
    has_image_extension,
    walk,
)
from anomalib_rd.data.sources.source import Source, Split
from anomalib_rd.results.files import printable

# Documents and tables that data sets come with.
DOCUMENTS = frozenset(
    {".txt", ".md", ".rst", ".csv", ".tsv", ".pdf", ".html", ".htm", ".log", ".doc", ".docx"}
    | {".xls", ".xlsx", ".yaml", ".yml", ".py", ".ipynb", ".sh", ".ini", ".bib", ".db"}
)
ANNOTATIONS = frozenset({".json", ".xml"})
NAMED_DOCUMENTS = ("license", "licence", "readme", "copying", "citation", "changelog", "makefile")


@dataclass(frozen=True)
class UnusedFiles:
    """Files of one kind that are not used.

    Attributes:
        paths: the files, folders or links.
        text: in one line what they are and what to do.
        expected: whether leaving them out is as it should be.
    """

    paths: list[Path]
    text: str
    expected: bool = False


def find_unused(source: Source, category: str, split: Split) -> list[UnusedFiles]:
    """What lies in the places of ``category`` beside the files that ``split`` uses.

    Raises:
        UserError: a folder cannot be read.
    """
    used = {sample.path for sample in (*split.train, *split.test)}
    used |= {sample.mask for sample in split.test if sample.mask is not None}
    places = getattr(source, "places", None)
    folders = [source.root / category] if places is None else places(category)
    others = getattr(source, "ignored", None)
    ignored: list[Path] = [] if others is None else others(category)
    found, unused = Found(), list[Path]()
    for folder in dict.fromkeys(folders):
        here = walk(folder)
        for part in vars(found):
            getattr(found, part).extend(getattr(here, part))
        unused += (
            path
            for path in here.images
            if path not in used and not set(path.parents) & {*used, *ignored}
        )
    for part, paths in vars(found).items():
        setattr(found, part, sorted(set(paths)))  # one place may lie in another
    return [*of_layout(unused), *describe_skipped(found, [source.root / category])]


def of_layout(unused: Iterable[Path]) -> Iterator[UnusedFiles]:
    """Images that lie where the layout has none."""
    folders: dict[Path, list[Path]] = {}
    for path in sorted(set(unused)):
        folders.setdefault(path.parent, []).append(path)
    for folder, paths in sorted(folders.items()):
        text = (
            f"{plural(len(paths), 'image')} directly in {printable(folder)} not used: the layout has"
            " no images there; move them to one of its folders, or delete them"
        )
        yield UnusedFiles(paths, text)


def describe_skipped(found: Found, tops: Iterable[Path] = ()) -> Iterator[UnusedFiles]:
    """What `walk` has not taken for images.

    Args:
        found: by `walk`.
        tops: folders in which files directly may describe the data set.
    """
    foreign = [path for path in found.others if is_foreign_image(path)]
    if foreign:
        yield UnusedFiles(
            foreign,
            f"{plural(len(foreign), 'file')} of kinds that are not read: {count_extensions(foreign)},"
            f" such as {printable(foreign[0])}; save them as PNG, or give them the ending of what"
            " they are",
        )
    drawn = [p for p in found.others if p.suffix.lower() in ANNOTATIONS and p.parent not in tops]
    if drawn:
        yield UnusedFiles(
            drawn,
            f"{plural(len(drawn), 'annotation file')} not read: {count_extensions(drawn)}, such as"
            f" {printable(drawn[0])}; have the labelling tool export masks as images",
        )
    if found.broken:
        yield UnusedFiles(
            found.broken,
            f"{plural(len(found.broken), 'link')} to nothing, such as {printable(found.broken[0])};"
            " restore what they lead to, or delete them",
        )
    if found.repeated:
        yield UnusedFiles(
            found.repeated,
            f"{plural(len(found.repeated), 'link')} to a folder that is read already or that the link"
            f" lies in, such as {printable(found.repeated[0])}: not followed",
            expected=True,
        )
    hidden = [path for path in found.hidden if holds_images(path)]
    if hidden:
        yield UnusedFiles(
            hidden,
            f"{plural(len(hidden), 'hidden or system file')} or folder with images left out, such as"
            f" {printable(hidden[0])}",
            expected=True,
        )


def is_foreign_image(path: Path) -> bool:
    """Whether a file without an ending of ours may be meant as an image, to say so."""
    ending = path.suffix.lower()
    if ending in DOCUMENTS | ANNOTATIONS:
        return False
    if not ending and path.name.lower().startswith(NAMED_DOCUMENTS):
        return False
    return bool(ending) or is_readable_image(path)


def is_readable_image(path: Path) -> bool:
    """Whether the content is an image of a format that is read, whatever the name says."""
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # Pillow's decoders raise nearly anything
        return False


def holds_images(hidden: Path) -> bool:
    """Whether leaving out a hidden file or folder leaves out images."""
    if hidden.is_dir():
        return bool(walk(hidden).images)
    # macOS writes ._000.png beside 000.png on foreign disks: no image, and always there.
    return has_image_extension(hidden) and not hidden.name.startswith("._")


def plural(count: int, what: str) -> str:
    """Such as ``1 file`` or ``3 files``."""
    return f"{count} {what}{'' if count == 1 else 's'}"
