"""Whether a teacher is the one that a run was trained with.

The teacher's weights are in no checkpoint, and a student is of use with its own teacher alone: with
another of the same shapes all scores and thresholds are wrong. So checkpoint, record and exported
file keep the SHA-256 of the teacher's state (`anomalib_rd.networks.teacher.state_sha256`).
"""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import sha256_file

SHOWN = 12  # digits of a hash in a message
TO_GO_ON = "put the run's weights back, or take another folder (hydra.run.dir=... or sweep=...)"

log = logging.getLogger(__name__)


def require_same_teacher(
    path: Path,
    kept: str | None,
    here: str,
    kept_spec: Mapping[str, Any],
    spec: Mapping[str, Any],
    way_out: str,
) -> None:
    """Refuse a teacher whose state is not the one of the run.

    Args:
        path: the checkpoint or record of the run.
        kept: the hash in it; None in those of older versions, which gets a warning.
        here: the hash of the teacher at hand.
        kept_spec: the run's ``model.teacher``: ``name, weights``.
        spec: the same at hand.
        way_out: what the user can do, besides giving the run's weights.

    Raises:
        UserError: with both hashes and where each is from.
    """
    if kept is None:
        log.warning(
            "%s: keeps no hash of its teacher; make sure that %s is the one", path, source(spec)
        )
    elif kept != here:
        raise UserError(
            f"{path}: trained with another teacher: SHA-256 {kept[:SHOWN]} from "
            f"{source(kept_spec)} there, {here[:SHOWN]} from {source(spec)} here; {way_out}"
        )


def source(spec: Mapping[str, Any]) -> str:
    """Where a teacher's weights are from, such as ``resnet18.tv_in1k (timm)``."""
    return f"{spec.get('name')} ({spec.get('weights')})"


def weights_file_sha256(spec: Mapping[str, Any]) -> str | None:
    """SHA-256 of the file that a teacher's weights are from; None where they are from no file."""
    path = Path(str(spec.get("weights")))
    if not path.is_file():
        return None
    found = path.stat()
    return _hashed(path.absolute(), found.st_mtime_ns, found.st_size)


# A sweep asks for each of its jobs, and the file is the same.
@functools.lru_cache(maxsize=8)
def _hashed(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001
    return sha256_file(path)
