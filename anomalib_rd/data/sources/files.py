"""The image files below a folder: links are followed, hidden and system folders are left out."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from anomalib_rd.errors import UserError

IMAGE_EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
# What operating systems, network drives and archives leave beside the user's own files.
SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot"}
    | {"$recycle.bin", "system volume information", "lost+found", "network trash folder"}
    | {"temporary items", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__"}
)


@dataclass
class Found:
    """What lies in a folder, or in it and below; every list is sorted.

    Attributes:
        images: files with one of `IMAGE_EXTENSIONS`.
        others: files with another ending, or with none.
        hidden: hidden or system files and folders; what is in these folders is not looked at.
        repeated: links to a folder that is above them, or that is read at another place.
        broken: links that lead nowhere.
    """

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system and not by the user."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def has_image_extension(path: Path) -> bool:
    """Whether the file's ending, in any case, is one of `IMAGE_EXTENSIONS`."""
    return path.suffix.lower() in IMAGE_EXTENSIONS


def walk(folder: Path, recursive: bool = True) -> Found:
    """Look through a folder; nothing is found where there is none.

    Links to folders are followed, but no folder is read twice: of several ways to one, the way
    without a link is taken, else the first by name. ``folder`` itself may be hidden.

    Raises:
        UserError: a folder cannot be read.
    """
    found = Found()
    if not folder.is_dir():
        return found
    read = {os.path.realpath(folder)}
    waiting, links = [folder], list[Path]()
    while waiting or links:
        if waiting:
            inner, linked = _look(waiting.pop(), found)
            if recursive:
                waiting += (path for path in inner if _is_new(path, read))
                links += linked
        else:
            links.sort(reverse=True)
            link = links.pop()
            if leads_up(link) or not _is_new(link, read):
                found.repeated.append(link)
            else:
                waiting.append(link)
    for part in (found.images, found.others, found.hidden, found.repeated, found.broken):
        part.sort()
    return found


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """Image files in ``folder``, or in it and below, by their endings, sorted: see `walk`."""
    return walk(folder, recursive).images


def subfolders(folder: Path) -> list[Path]:
    """Folders directly inside ``folder`` and links to folders, without hidden ones, sorted."""
    return sorted(path for path in _entries(folder) if path.is_dir() and not is_hidden(path.name))


def distinct_subfolders(folder: Path) -> list[Path]:
    """As `subfolders`, each folder once, under its own name rather than a link's."""
    read: set[str] = set()
    by_own_name = sorted(subfolders(folder), key=Path.is_symlink)
    return sorted(path for path in by_own_name if not leads_up(path) and _is_new(path, read))


def leads_up(path: Path) -> bool:
    """Whether a link leads to a folder that it lies in, so that following it would not end."""
    if not path.is_symlink():
        return False
    target, home = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    return home == target or target in home.parents


def count_extensions(paths: Iterable[Path]) -> str:
    """Such as ``.heic (3), no ending (1)``."""
    counts: dict[str, int] = {}
    for path in paths:
        ending = path.suffix.lower() or "no ending"
        counts[ending] = counts.get(ending, 0) + 1
    return ", ".join(f"{ending} ({count})" for ending, count in sorted(counts.items()))


def explain_no_images(folder: Path, recursive: bool = False) -> str:
    """What lies in a folder in which no image was found, to be added to an error."""
    if not folder.is_dir():
        return " (there is no such folder)"
    found = walk(folder, recursive)
    reasons = []
    if found.others:
        reasons.append(
            f"it holds files that are not read: {count_extensions(found.others)}; read are "
            f"{', '.join(sorted(IMAGE_EXTENSIONS))}"
        )
    inner = [] if recursive else [path for path in subfolders(folder) if walk(path).images]
    if inner:
        names = ", ".join(path.name for path in inner[:3])
        reasons.append(f"images lie in folders below it: {names}")
    if found.hidden:
        reasons.append(f"hidden files and folders are left out: {found.hidden[0].name}")
    if found.broken:
        reasons.append(f"links lead nowhere: {found.broken[0].name}")
    return f" ({'; '.join(reasons)})" if reasons else ""


def _look(folder: Path, found: Found) -> tuple[list[Path], list[Path]]:
    """Note what lies directly in a folder; gives its folders and its links to folders."""
    inner: list[Path] = []
    links: list[Path] = []
    for path in _entries(folder):
        if is_hidden(path.name):
            found.hidden.append(path)
        elif path.is_dir():
            (links if path.is_symlink() else inner).append(path)
        elif path.is_file():
            (found.images if has_image_extension(path) else found.others).append(path)
        elif path.is_symlink():
            found.broken.append(path)
    return inner, links


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error


def _is_new(folder: Path, read: set[str]) -> bool:
    """Whether a folder is not among those read yet; from now on it is."""
    real = os.path.realpath(folder)
    if real in read:
        return False
    read.add(real)
    return True
