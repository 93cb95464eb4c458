"""Unused files in the folders of a category, described by one line for each kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from anomalib_rd.data.images import FORMATS
from anomalib_rd.data.sources.files import (
    FolderContents,
    count_extensions,
    has_image_extension,
    walk,
)
from anomalib_rd.data.sources.source import Source, Split
from anomalib_rd.results.files import printable

# Documents and tables that accompany data sets.
DOCUMENTS = frozenset(
    {".txt", ".md", ".rst", ".csv", ".tsv", ".pdf", ".html", ".htm", ".log", ".doc", ".docx"}
    | {".xls", ".xlsx", ".yaml", ".yml", ".py", ".ipynb", ".sh", ".ini", ".bib", ".db"}
)
ANNOTATIONS = frozenset({".json", ".xml"})
NAMED_DOCUMENTS = ("license", "licence", "readme", "copying", "citation", "changelog", "makefile")


@dataclass(frozen=True)
class UnusedFiles:
    """Unused files of one kind.

    Attributes:
        paths: files, folders or links.
        text: one line that describes them and gives a remedy.
        expected: whether such files are normal.
    """

    paths: list[Path]
    text: str
    expected: bool = False


def find_unused(source: Source, category: str, split: Split) -> list[UnusedFiles]:
    """Files in the folders of ``category`` that ``split`` does not use.

    A source may define ``folders(category)``, the folders to search, and
    ``ignored_folders(category)``, folders of images that it excludes on purpose.

    Raises:
        UserError: a folder cannot be read.
    """
    used = {sample.path for sample in (*split.train, *split.test)}
    used |= {sample.mask for sample in split.test if sample.mask is not None}
    top = source.root / category
    folders = getattr(source, "folders", lambda _: [top])(category)
    ignored = used | {*getattr(source, "ignored_folders", lambda _: [])(category)}
    contents = FolderContents()
    for folder in folders:
        contents.merge(walk(folder))
    by_folder: dict[Path, list[Path]] = {}
    for path in contents.images:
        if ignored.isdisjoint([path, *path.parents]):
            by_folder.setdefault(path.parent, []).append(path)
    misplaced = [
        UnusedFiles(
            paths,
            f"{plural(len(paths), 'image')} directly in {printable(folder)} not used: the layout"
            " has no images there; move them to one of its subfolders, or delete them",
        )
        for folder, paths in sorted(by_folder.items())
    ]
    return [*misplaced, *describe_skipped(contents, top)]


def describe_skipped(contents: FolderContents, top: Path | None = None) -> Iterator[UnusedFiles]:
    """Describe the files of `walk` that are not images.

    Annotation files directly in ``top`` are ignored, since they may describe the data set.
    """
    foreign = [path for path in contents.others if _may_be_image(path)]
    annotations = [
        path
        for path in contents.others
        if path.suffix.lower() in ANNOTATIONS and path.parent != top
    ]
    hidden = [path for path in contents.hidden if _hides_images(path)]
    for paths, noun, advice, expected in (
        (foreign, "unsupported file", "save them as PNG, or correct their extension", False),
        (annotations, "annotation file", "not read; export the masks as images", False),
        (contents.broken, "broken link", "restore the targets, or delete the links", False),
        (contents.repeated, "repeated link", "not followed, the folder is already read", True),
        (hidden, "hidden or system path", "skipped, with the images in it", True),
    ):
        if paths:
            extensions = f" ({count_extensions(paths)})" if paths[0] in contents.others else ""
            text = (
                f"{plural(len(paths), noun)}{extensions}, such as {printable(paths[0])}: {advice}"
            )
            yield UnusedFiles(paths, text, expected)


def _may_be_image(path: Path) -> bool:
    extension = path.suffix.lower()
    if extension in DOCUMENTS | ANNOTATIONS:
        return False
    if extension:
        return True
    return not path.name.lower().startswith(NAMED_DOCUMENTS) and _is_readable_image(path)


def _is_readable_image(path: Path) -> bool:
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # Pillow's decoders raise nearly anything
        return False


def _hides_images(hidden: Path) -> bool:
    if hidden.is_dir():
        return bool(walk(hidden).images)
    # macOS writes ._000.png next to 000.png on foreign disks: no image.
    return has_image_extension(hidden) and not hidden.name.startswith("._")


def plural(count: int, noun: str) -> str:
    """For example ``1 file`` or ``3 files``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
