"""A run's checkpoint read with care: whole, its own, and without running what it names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line, read_json, sha256_file
from anomalib_rd.results.record import RESULT
from anomalib_rd.results.threshold import Threshold, threshold_of

FOLDER, FILE = "checkpoints", "last.ckpt"
# What a config may name: the rest could be any code, and a checkpoint may come from anyone.
OWN_FUNCTIONS = {"anomalib_rd.tracking.wandb_logger.wandb_logger"}
TRUSTED = ("anomalib_rd.", "torch.optim.", "lightning.pytorch.", "torchvision.transforms.")


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds.

    Attributes:
        path: the checkpoint.
        folder: the run's, or where the checkpoint lies by itself.
        sha256: of the checkpoint.
        config: the run's, resolved, in plain types.
        digest: of the config as it was written.
        state: of the networks without the teacher, under the module's names.
        epochs: trained.
        record: ``result.json``, None if the run left none (yet).
        threshold: None if the run has none.
    """

    path: Path
    folder: Path
    sha256: str
    config: dict[str, Any]
    digest: str | None
    state: dict[str, Tensor]
    epochs: int
    record: dict[str, Any] | None
    threshold: Threshold | None


def read_run(run: Path | str, trust: bool = False) -> Trained:
    """Read a run's checkpoint and what lies beside it.

    Args:
        run: the run's folder, or a checkpoint.
        trust: whether networks from outside of this project that the config names may be run.

    Raises:
        UserError: no such run or checkpoint, damaged, not the one that was recorded, or naming
            foreign code without ``trust``.
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
            state=dict(kept["state_dict"]),
            epochs=int(progress["processed"]),
            record=record,
            threshold=threshold_of(kept.get("threshold"), path),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: lacks {one_line(error)}; not a checkpoint of anomalib-rd, or of another "
            "version"
        ) from error
    require_known_code(path, {"model": trained.config.get("model")}, trust)
    return trained


def find_checkpoint(run: Path) -> Path:
    """The checkpoint in a run's folder, or the file itself.

    Raises:
        UserError: there is none.
    """
    run = run.expanduser()
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


def require_known_code(path: Path, config: Mapping[str, Any], trust: bool) -> None:
    """Refuse a config that would have code from outside of this project run.

    Raises:
        UserError: naming it, unless ``trust``.
    """
    foreign = next((k for k, target in targets(config) if not is_known(target)), None)
    if foreign is not None and not trust:
        raise UserError(
            f"{path}: its config names code from outside of anomalib-rd ({foreign}); if you know "
            "it, say --trust (load_run(..., trust=True))"
        )


def targets(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All that the config would have instantiated: what and where, and its name."""
    items: Any = ()
    if isinstance(config, Mapping):
        if "_target_" in config:
            target = str(config["_target_"])
            yield f"{key}._target_={target}", target
        items = config.items()
    elif isinstance(config, list):
        items = enumerate(config)
    for name, value in items:
        yield from targets(value, f"{key}.{name}" if key else str(name))


def is_known(target: str) -> bool:
    """Whether a dotted name is of a class that is defined where it says.

    Not what such a module has imported: that may be any function of any library.
    """
    if target in OWN_FUNCTIONS:
        return True
    if not target.startswith(TRUSTED):
        return False
    try:
        found = get_object(target)
    except Exception:  # whatever the name makes Hydra meet
        return False
    return isinstance(found, type) and f"{found.__module__}.".startswith(TRUSTED)


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
