"""One hash for the very images and masks a run used."""

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
    """SHA-256 over what each file is for, its path relative to ``root``, and its content's hash.

    It changes when a file is added, removed, renamed, altered or moved between train, test and
    masks; not with where ``root`` is, nor with the order of the samples.

    Raises:
        UserError: a file cannot be read.
    """
    return combine_hashes(hash_files(split, root))


def combine_hashes(hashes: Mapping[str, str]) -> str:
    """The fingerprint of files whose hashes `hash_files` gives."""
    lines = sorted(f"{name}\0{content}\n" for name, content in hashes.items())
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def hash_files(split: Split, root: Path) -> dict[str, str]:
    """SHA-256 of each file's content, by what it is for and its path below ``root``.

    The keys are ``ROLE\\0PATH`` with the roles `TRAIN`, ``test`` and ``mask``.

    Raises:
        UserError: a file cannot be read.
    """
    files = sorted(
        {(TRAIN, sample.path) for sample in split.train}
        | {("test", sample.path) for sample in split.test}
        | {("mask", sample.mask) for sample in split.test if sample.mask is not None}
    )
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(_readable_hash, [path for _, path in files])
        return {
            f"{role}\0{PurePath(os.path.relpath(path, root)).as_posix()}": content
            for (role, path), content in zip(files, hashes, strict=True)
        }


def find_changed_files(
    before: Mapping[str, str], now: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The files that were added, removed or altered: those to train on, and the others.

    Args:
        before: of `hash_files`.
        now: likewise.
    """
    changed = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    roles = [name.partition("\0") for name in changed]
    trained = [path for role, _, path in roles if role == TRAIN]
    return trained, [path for role, _, path in roles if role != TRAIN]


def hash_content(path: Path) -> str:
    """SHA-256 of a file's bytes, not computed again in this process while the file is the same.

    Of a folder of masks: over the names and the contents of its images.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    if S_ISDIR(state.st_mode):
        parts = (f"{file.name}\0{hash_content(file)}\n" for file in list_images(path))
        return hashlib.sha256("".join(parts).encode(errors="surrogateescape")).hexdigest()
    # The time of change too: a copy that keeps the modification time moves it.
    return _sha256(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@cache
def _sha256(path: Path, *state: int) -> str:  # noqa: ARG001
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _readable_hash(path: Path) -> str:
    try:
        return hash_content(path)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; was the dataset changed?"
        ) from error
