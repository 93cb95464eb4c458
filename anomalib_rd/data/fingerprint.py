"""Hashes of the images and masks that a run used."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path, PurePath
from stat import S_ISDIR

from anomalib_rd.data.sources.files import list_images
from anomalib_rd.data.sources.source import Split
from anomalib_rd.errors import UserError

TRAIN = "train"


def dataset_fingerprint(split: Split, root: Path) -> str:
    """SHA-256 over each file's role, its path relative to ``root``, and the hash of its content.

    It changes if a file is added, removed, renamed, altered or moved between train, test and
    masks. It does not depend on the location of ``root`` or the order of the samples.

    Raises:
        UserError: a file cannot be read.
    """
    return combine_hashes(hash_files(split, root))


def combine_hashes(hashes: Mapping[str, str]) -> str:
    """The fingerprint from the hashes of `hash_files`."""
    lines = sorted(f"{name}\0{content}\n" for name, content in hashes.items())
    return _sha256("".join(lines))


def hash_files(split: Split, root: Path) -> dict[str, str]:
    """``ROLE\\0PATH`` -> SHA-256 of the content.

    Roles are `TRAIN`, ``test`` and ``mask``, paths relative to ``root``.

    Raises:
        UserError: a file cannot be read.
    """
    files = sorted(
        {(TRAIN, sample.path) for sample in split.train}
        | {("test", sample.path) for sample in split.test}
        | {("mask", sample.mask) for sample in split.test if sample.mask is not None}
    )
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(_hash_readable, [path for _, path in files])
        return {
            f"{role}\0{PurePath(os.path.relpath(path, root)).as_posix()}": content
            for (role, path), content in zip(files, hashes, strict=True)
        }


def find_changed_files(
    before: Mapping[str, str], now: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Training files, and other files, that differ between two results of `hash_files`."""
    changed = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    roles = [name.partition("\0") for name in changed]
    trained = [path for role, _, path in roles if role == TRAIN]
    return trained, [path for role, _, path in roles if role != TRAIN]


def hash_content(path: Path) -> str:
    """SHA-256 of a file, cached in this process until the file changes.

    The hash of a folder of masks covers the names and contents of its images.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    if S_ISDIR(state.st_mode):
        files = list_images(path)
        return _sha256("".join(f"{file.name}\0{hash_content(file)}\n" for file in files))
    # Also the change time: a copy may preserve the modification time.
    return _hash_file(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


@cache
def _hash_file(path: Path, *state: int) -> str:  # noqa: ARG001
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_readable(path: Path) -> str:
    try:
        return hash_content(path)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; was the dataset changed?"
        ) from error
