"""Files that are whole or not there: atomic writing, locks, JSON for records, hashes."""

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

LONGEST_NAME = 255
"""Bytes of a file's name that nearly every file system takes."""
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)
# A temporary file's name: ours without doubt, with the process that writes it.
_TEMPORARY = re.compile(r"\.anomalib-rd\.(\d+)\.[0-9a-f]{8}\.tmp")
# A lock is held for milliseconds; whoever holds it longer hangs. Seconds.
LOCK_TIMEOUT = 30.0
# Unicode's categories: control codes, lone surrogates, line and paragraph separators.
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# What a file system answers that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> Path:
    """Calls ``write`` on a temporary file beside ``path``, then puts it in its place.

    Whoever looks sees the old file or the whole new one, even after a crash.

    Raises:
        OSError: with ``path`` as its file name; also where the writer has hidden that the disk is
            full behind an error of its own, as torch does.
    """
    temporary = path.with_name(f".anomalib-rd.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        hidden = find_disk_error(error)
        if hidden is None:
            raise
        raise OSError(hidden.errno, hidden.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def shorten_name(name: str, ending: str) -> str:
    """A file's name, cut if it is longer than file systems allow.

    A cut name ends in a hash of the whole one, so different names stay different.

    Args:
        name: without ending; may hold bytes that are not UTF-8, as `os.fsdecode` gives them.
        ending: such as ``.png``; kept.
    """
    room = LONGEST_NAME - len(os.fsencode(ending))
    encoded = os.fsencode(name)
    if len(encoded) > room:
        digest = hashlib.sha256(encoded).hexdigest()[:12]
        kept = encoded[: room - len(digest) - 1].decode(errors="ignore")
        name = f"{kept}-{digest}"
    return name + ending


def printable(name: Path | str) -> str:
    r"""A path or name as one line of text that any UTF-8 file and terminal takes.

    Bytes that are not UTF-8, control codes and line breaks are written as ``\xfc``, ``\n``.
    """
    text = name.as_posix() if isinstance(name, Path) else name
    text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in UNPRINTABLE else c
        for c in text
    )


def find_disk_error(error: BaseException | None) -> OSError | None:
    """The disk's own error, in the error or behind it: full, failing or not to be written."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REFUSALS:
            return error
        error = error.__context__
    return None


def remove_partial_files(folder: Path) -> None:
    """Removes what killed processes left of files that `write_atomically` never finished.

    Only files directly in the folder, with the name of such a temporary file, whose process is
    gone. A folder that is a link is left alone: what it leads to may be somebody else's.
    """
    if folder.is_symlink():
        return
    for half in folder.glob(".anomalib-rd.*.tmp"):
        name = _TEMPORARY.fullmatch(half.name)
        # This process writes nothing yet: its number was another's, as in a restarted container.
        if name and (int(name[1]) == os.getpid() or not psutil.pid_exists(int(name[1]))):
            half.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Lets one process at a time into the block, on a file system that has locks.

    The lock of a killed process ends with it.

    Args:
        path: the lock's file, made where it is missing. It stays: if it were removed, a process
            that has opened it and one that makes it anew would both hold a lock.

    Raises:
        UserError: another process holds the lock for `LOCK_TIMEOUT` seconds.
    """
    lock = FileLock(path, timeout=LOCK_TIMEOUT, poll_interval=0.01)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{path}: another process has held this lock for {LOCK_TIMEOUT:.0f} s; "
            "end it and try again"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def sha256_file(path: Path | str) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json_types(value: Any) -> Any:
    """The value in JSON's types: numpy and paths converted, NaN and infinity to None."""
    if isinstance(value, Mapping):
        return {str(key): to_json_types(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return to_json_types(value.tolist())  # an array or scalar of NumPy, without importing it
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [to_json_types(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> Path:
    """Writes the value atomically as indented JSON; NaN is refused, see `to_json_types`."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    return write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is missing, no JSON, or no object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; is this the folder of a finished run?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}, not a record; run it again")
    return value


def one_line(error: BaseException) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def expand_home(path: str | Path) -> Path:
    """A path with ``~`` replaced by the user's home folder; a file may be called ``~name``, too."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user
        return Path(path)
