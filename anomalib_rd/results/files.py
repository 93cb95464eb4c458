"""Atomic writes, file locks, JSON, hashes and file names."""

import errno
import hashlib
import json
import math
import os
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from filelock import FileLock, Timeout

from anomalib_rd.errors import UserError

MAX_NAME_BYTES = 255  # of a file name, on nearly every file system
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems without locks
LOCK_TIMEOUT = 30.0  # seconds; a working process holds a lock for milliseconds
# Unicode categories: control codes, lone surrogates, line and paragraph separators.
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# The name of a temporary file contains the id of the process that writes it.
_TEMPORARY = re.compile(r"\.anomalib-rd\.(\d+)\.[0-9a-f]{8}\.tmp")


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> Path:
    """Write a temporary file in the same folder, then rename it to ``path``.

    Readers see the old file or the complete new one, even after a crash.

    Raises:
        OSError: with ``path`` as its file name, also if ``write`` raises another error because of
            a disk error, as torch does.
    """
    temporary = path.with_name(f".anomalib-rd.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        disk_error = find_disk_error(error)
        if disk_error is None:
            raise
        raise OSError(disk_error.errno, disk_error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def find_disk_error(error: BaseException | None) -> OSError | None:
    """The error, or the error behind it, of a full, failing or read-only disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return error
        error = error.__context__
    return None


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files of processes that were killed in `write_atomically`.

    Subfolders and linked folders, whose target may belong to another user, are not touched.
    """
    if folder.is_symlink():
        return
    for path in folder.glob(".anomalib-rd.*.tmp"):
        name = _TEMPORARY.fullmatch(path.name)
        # A file with this process's id is from an earlier process with the same id, as in a
        # restarted container: this one has not written any file yet.
        if name and (int(name[1]) == os.getpid() or not psutil.pid_exists(int(name[1]))):
            path.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Let one process at a time execute the block, if the file system supports locks.

    A killed process releases its lock.

    Args:
        path: lock file, created if missing. It is never removed: otherwise one process could lock
            the removed file while another locks a new one.

    Raises:
        UserError: another process holds the lock for `LOCK_TIMEOUT` seconds.
    """
    lock = FileLock(path, timeout=LOCK_TIMEOUT, poll_interval=0.01)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{path}: another process has held this lock for {LOCK_TIMEOUT:.0f} s; "
            "end that process and try again"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json_types(value: Any) -> Any:
    """Convert NumPy values and paths to JSON types, NaN and infinity to None."""
    if isinstance(value, Mapping):
        return {str(key): to_json_types(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # NumPy, without importing it
        return to_json_types(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [to_json_types(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> Path:
    """Write indented JSON atomically; NaN raises ValueError, see `to_json_types`."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    return write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing, is not JSON, or contains no object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; is this the folder of a finished run?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: contains {type(value).__name__}, not a record; run it again")
    return value


def one_line(error: BaseException) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def shorten_name(name: str, suffix: str) -> str:
    """File name, shortened if it is longer than file systems allow.

    A shortened name ends in a hash of the full name, so that different names stay different.

    Args:
        name: without suffix; may contain bytes that are not UTF-8, as from `os.fsdecode`.
        suffix: such as ``.png``.
    """
    limit = MAX_NAME_BYTES - len(os.fsencode(suffix))
    encoded = os.fsencode(name)
    if len(encoded) > limit:
        digest = hashlib.sha256(encoded).hexdigest()[:12]
        start = encoded[: limit - len(digest) - 1].decode(errors="ignore")
        name = f"{start}-{digest}"
    return name + suffix


def printable(name: Path | str) -> str:
    r"""A path or name as one line of UTF-8 text.

    Bytes that are not UTF-8, control codes and line breaks become ``\xfc``, ``\n``.
    """
    text = name.as_posix() if isinstance(name, Path) else name
    text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in UNPRINTABLE else c
        for c in text
    )


def expand_home(path: str | Path) -> Path:
    """Replace ``~`` by the user's home folder, unless a file has that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user
        return Path(path)
