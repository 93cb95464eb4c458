"""Files that are whole or not there: atomic writing, JSON for records, hashes."""

import errno
import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anomalib_rd.errors import UserError

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> Path:
    """Calls ``write`` on a temporary file beside ``path``, then puts it in its place.

    Whoever looks sees the old file or the whole new one, even after a crash.

    Raises:
        OSError: with ``path`` as its file name; also where the writer has hidden that the disk is
            full behind an error of its own, as torch does.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        hidden = refusal(error)
        if hidden is None:
            raise
        raise OSError(hidden.errno, hidden.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def refusal(error: BaseException | None) -> OSError | None:
    """The disk's own error, in the error or behind it: full, failing or not to be written."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REFUSALS:
            return error
        error = error.__context__
    return None


def clear_halves(folder: Path) -> None:
    """Removes what killed processes left of files that `write_atomically` never finished.

    Only where no other process writes: in or under a folder that is this one's alone.
    """
    for half in folder.rglob(".*.tmp"):
        half.unlink(missing_ok=True)


def sha256_file(path: Path | str) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """The value in JSON's types: numpy and paths converted, NaN and infinity to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> Path:
    """Writes the value atomically as indented JSON; NaN is refused, see `plain`."""
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
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}, not a record; run it again")
    return value


def one_line(error: BaseException) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
