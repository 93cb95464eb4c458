"""Listing of image files; links are followed, hidden and system files are skipped."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from anomalib_rd.errors import UserError

IMAGE_EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
# Files and folders that operating systems, network drives and archives add to the user's.
SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot"}
    | {"$recycle.bin", "system volume information", "lost+found", "network trash folder"}
    | {"temporary items", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__"}
)


@dataclass
class FolderContents:
    """The files in and below a folder; every list is sorted.

    Attributes:
        images: files with one of `IMAGE_EXTENSIONS`.
        others: files with another extension, or none.
        hidden: hidden or system files and folders; these folders are not searched.
        repeated: links to a folder above them, or to a folder that is already read.
        broken: links whose target is missing.
    """

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)

    def merge(self, other: "FolderContents") -> None:
        """Add the paths of another folder, which may be a part of this one, without repeats."""
        for name, paths in vars(self).items():
            paths[:] = sorted({*paths, *getattr(other, name)})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden or created by an operating system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def has_image_extension(path: Path) -> bool:
    """Whether the extension, in any case, is one of `IMAGE_EXTENSIONS`."""
    return path.suffix.lower() in IMAGE_EXTENSIONS


def walk(folder: Path, recursive: bool = True) -> FolderContents:
    """List a folder and the folders below it; empty if it does not exist.

    Links to folders are followed, but no folder is read twice: among several paths to a folder
    the one without a link is used, else the first by name. ``folder`` itself may be hidden.

    Raises:
        UserError: a folder cannot be read.
    """
    contents = FolderContents()
    if not folder.is_dir():
        return contents
    read = {os.path.realpath(folder)}
    waiting, links = [folder], list[Path]()
    while waiting or links:
        if not waiting:
            links.sort(reverse=True)
            link = links.pop()
            if links_to_parent(link) or not _is_new(link, read):
                contents.repeated.append(link)
            else:
                waiting.append(link)
            continue
        for path in _entries(waiting.pop()):
            if is_hidden(path.name):
                contents.hidden.append(path)
            elif path.is_dir():
                if recursive and path.is_symlink():
                    links.append(path)
                elif recursive and _is_new(path, read):
                    waiting.append(path)
            elif path.is_file():
                (contents.images if has_image_extension(path) else contents.others).append(path)
            elif path.is_symlink():
                contents.broken.append(path)
    for paths in vars(contents).values():
        paths.sort()
    return contents


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """Image files in ``folder``, or in it and below, sorted: see `walk`."""
    return walk(folder, recursive).images


def subfolders(folder: Path) -> list[Path]:
    """Folders and links to folders directly inside ``folder``, without hidden ones, sorted."""
    return sorted(path for path in _entries(folder) if path.is_dir() and not is_hidden(path.name))


def distinct_subfolders(folder: Path) -> list[Path]:
    """`subfolders` without repeats; a folder's own name is preferred to that of a link."""
    read: set[str] = set()
    links_last = sorted(subfolders(folder), key=Path.is_symlink)
    return sorted(path for path in links_last if not links_to_parent(path) and _is_new(path, read))


def links_to_parent(path: Path) -> bool:
    """Whether a link leads to a folder that contains it, which would be an endless loop."""
    if not path.is_symlink():
        return False
    target, parent = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    return parent == target or target in parent.parents


def count_extensions(paths: Iterable[Path]) -> str:
    """For example ``.heic (3), no extension (1)``."""
    counts = Counter(path.suffix.lower() or "no extension" for path in paths)
    return ", ".join(f"{extension} ({count})" for extension, count in sorted(counts.items()))


def explain_no_images(folder: Path, recursive: bool = False) -> str:
    """The reason why a folder has no images, in parentheses, to append to an error."""
    if not folder.is_dir():
        return " (the folder does not exist)"
    contents = walk(folder, recursive)
    reasons = []
    if contents.others:
        reasons.append(
            f"unsupported files: {count_extensions(contents.others)}; supported are "
            f"{', '.join(sorted(IMAGE_EXTENSIONS))}"
        )
    inner = [] if recursive else [path for path in subfolders(folder) if walk(path).images]
    if inner:
        names = ", ".join(path.name for path in inner[:3])
        reasons.append(f"there are images in its subfolders: {names}")
    if contents.hidden:
        reasons.append(f"hidden files and folders are skipped: {contents.hidden[0].name}")
    if contents.broken:
        reasons.append(f"broken links: {contents.broken[0].name}")
    return f" ({'; '.join(reasons)})" if reasons else ""


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error


def _is_new(folder: Path, read: set[str]) -> bool:
    """Add a folder to ``read``; return whether it is new."""
    real = os.path.realpath(folder)
    if real in read:
        return False
    read.add(real)
    return True
