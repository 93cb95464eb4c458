"""A run's checkpoint read with care: whole, its own, and without running what it names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomalib_rd.components import require_known_code, require_plain
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import expand_home, one_line, read_json, sha256_file
from anomalib_rd.results.record import RESULT
from anomalib_rd.results.threshold import Threshold, parse_threshold

FOLDER, FILE = "checkpoints", "last.ckpt"
PARTS = ("teacher", "masking", "fusion", "student")


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds.

    Attributes:
        path: the checkpoint.
        folder: the run's, or where the checkpoint lies by itself.
        sha256: of the checkpoint.
        config: the run's, resolved, in plain types.
        digest: of the config as it was written.
        teacher_sha256: of the teacher's state; None in checkpoints of older versions.
        state: of the networks without the teacher, under the module's names.
        epochs: trained.
        record: ``result.json``, None if the run left none (yet).
        threshold: None if the run has none.
        trust: whether code from outside of this project that the config names may be run.
        map_scale: map values of the darkest and brightest colour of the run's heatmaps; None where
            an older version kept none.
        data_fingerprint: of the images when it was trained; None of older runs.
    """

    path: Path
    folder: Path
    sha256: str
    config: dict[str, Any]
    digest: str | None
    teacher_sha256: str | None
    state: dict[str, Tensor]
    epochs: int
    record: dict[str, Any] | None
    threshold: Threshold | None
    trust: bool = False
    map_scale: tuple[float, float] | None = None
    data_fingerprint: str | None = None


def read_run(run: Path | str, trust: bool = False) -> Trained:
    """Read a run's checkpoint and what lies beside it.

    Args:
        run: the run's folder, or a checkpoint.
        trust: whether networks from outside of this project that the config names may be run.

    Raises:
        UserError: no such run or checkpoint, damaged, not the one that was recorded, with a config
            that is not plain, or naming foreign code without ``trust``.
    """
    path = find_checkpoint(Path(run))
    folder = path.parent.parent if path.parent.name == FOLDER else path.parent
    kept = _read(path)
    sha256 = sha256_file(path)
    record = read_json(folder / RESULT) if (folder / RESULT).is_file() else None
    recorded = ((record or {}).get("checkpoint") or {}).get("sha256")
    if recorded not in (None, sha256):
        raise UserError(
            f"{path}: not the checkpoint that {folder / RESULT} records (another SHA-256): damaged "
            "or replaced; copy it again, or take it to a folder of its own"
        )
    try:
        progress = kept["loops"]["fit_loop"]["epoch_progress"]["current"]
        trained = Trained(
            path=path,
            folder=folder,
            sha256=sha256,
            config=dict(kept["config"]),
            digest=kept.get("config_digest"),
            teacher_sha256=kept.get("teacher_sha256"),
            state=dict(kept["state_dict"]),
            epochs=int(progress["processed"]),
            record=record,
            threshold=parse_threshold(kept.get("threshold"), path),
            trust=trust,
            map_scale=scale_of(kept.get("map_scale") or (record or {}).get("map_scale")),
            data_fingerprint=kept.get("data_fingerprint"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: lacks {one_line(error)}; not a checkpoint of anomalib-rd, or of another "
            "version"
        ) from error
    require_plain(path, trained.config)
    _require_parts(path, trained.config)
    require_known_code(path, {"model": trained.config["model"]}, trust)
    return trained


def scale_of(kept: Any) -> tuple[float, float] | None:
    """A scale as a file keeps it.

    Raises:
        TypeError, ValueError: not two numbers.
    """
    if kept is None:
        return None
    low, high = map(float, kept)
    return low, high


def find_checkpoint(run: Path) -> Path:
    """The checkpoint in a run's folder, or the file itself.

    Raises:
        UserError: there is none.
    """
    run = expand_home(run)
    if run.is_file():
        if run.suffix == ".ckpt":
            return run
        raise UserError(f"{run}: no checkpoint; give a run's folder or its {FOLDER}/{FILE}")
    if not run.is_dir():
        raise UserError(f"{run}: no such run; give a run's folder or its {FOLDER}/{FILE}")
    path = run / FOLDER / FILE
    if path.is_file():
        return path
    inside = next(iter(sorted(run.rglob(f"{FOLDER}/{FILE}"))), None)
    hint = f"; give one of the runs in it, such as {inside.parent.parent}" if inside else ""
    raise UserError(f"{run}: no {FOLDER}/{FILE} in it{hint or '; was the run cut off?'}")


def _require_parts(path: Path, config: dict[str, Any]) -> None:
    """Refuse a config without what every run has."""
    keys = ["model", "data", "trainer", "data.source", *(f"model.{part}" for part in PARTS)]
    for key in [*keys, "model.scoring"]:
        found: Any = config
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise UserError(f"{path}: its config must hold keys and values under {key}")
    size = config["data"].get("image_size")
    if not (isinstance(size, list) and [type(side) for side in size] == [int, int]):
        raise UserError(f"{path}: its config has no data.image_size [height, width] in pixels")


def _read(path: Path) -> dict[str, Any]:
    try:
        # Mapped: the optimizer's state is most of it, and not wanted.
        kept: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise UserError(
            f"{path}: damaged, or no checkpoint of anomalib-rd ({one_line(error)[:100]})"
        ) from error
    if not isinstance(kept, dict):
        raise UserError(f"{path}: no checkpoint of anomalib-rd, it holds {type(kept).__name__}")
    return kept
