"""What makes a run another run: the one rule behind folder names, skipping and resuming.

Every key of the config counts, whoever added it, but for those below, which change no result.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import sha256_file, to_json_types
from anomalib_rd.results.provenance import mask_config

log = logging.getLogger(__name__)

# Key -> why another value of it gives the same result. A group stands for all its keys.
IGNORED = {
    "hydra": "how jobs are launched, and where Hydra writes",
    "sweep": "the name of a folder and of a W&B group",
    "name": "the name of a folder and of a W&B run",
    "run_dir": "where the run writes",
    "logger": "loggers are given values and return none",
    "report": "drawn after the evaluation",
    "data.num_workers": "which process reads an image does not change the image",
    "speed.image_cache": "holds the pixels that decoding gives",
    "speed.feature_cache": "holds the features that the teacher gives",
    "trainer.default_root_dir": "where Lightning writes",
    "trainer.enable_progress_bar": "shown while it trains",
    "trainer.enable_model_summary": "shown before it trains",
    "trainer.log_every_n_steps": "how often loggers are given values",
}
# Class of a callback -> its options that change no result, as above; None: all of them. A callback
# of any other class counts with all its options.
IGNORED_CALLBACKS: dict[str, dict[str, str] | None] = {
    "lightning.pytorch.callbacks.RichProgressBar": None,
    "lightning.pytorch.callbacks.TQDMProgressBar": None,
    "anomalib_rd.training.checkpoints.LastCheckpoint": {
        "every_s": "how often an unfinished run is saved: resumed, it ends with the same bits",
        "dirpath": "where checkpoints are written",
        "filename": "where checkpoints are written",
        "enable_version_counter": "where checkpoints are written",
    },
}
# Where the images are may differ between machines if the environment says it: that counts as it
# is written, such as ${oc.env:MVTEC_ROOT}. What the images are, their fingerprint tells.
AS_WRITTEN = {"data.root", "data.source.root"}
SHOWN = 3


def config_digest(cfg: DictConfig) -> str:
    """Eight hex digits that differ where the configs of two runs do.

    Interpolations count by their values, but for `AS_WRITTEN` and what can't be resolved yet.
    """
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)
    raw.pop("hydra", None)
    # A key that is not counted must not count by way of an interpolation of it.
    stable = {key: key for key, value in raw.items() if key in IGNORED and isinstance(value, str)}
    settings = OmegaConf.create(raw | stable)
    found = {
        key: value if key in AS_WRITTEN else _resolved(settings, key, value)
        for key, value in counted(raw)
    }
    text = json.dumps(found, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _resolved(config: DictConfig, key: str, value: Any) -> Any:
    """What the value of a dotted key resolves to; as written where it can't be resolved."""
    if "${" not in json.dumps(value, default=str):
        return value
    node: Any = config
    try:
        for name in key.split("."):
            node = node[name]
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException:
        return value


def require_same_run(
    folder: Path, cfg: DictConfig, kept: Mapping[Any, Any], kept_digest: str | None
) -> None:
    """Refuse to take the run in a folder for the one at hand if their configs differ.

    Args:
        folder: where the other run is.
        cfg: of the run at hand; it can be resolved.
        kept: the resolved config that the folder's run left.
        kept_digest: its `config_digest`; None if it left none.

    Raises:
        UserError: naming the first keys that differ, with both values.
    """
    if kept_digest == config_digest(cfg):
        return
    here = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(here, dict)
    differing = differences(kept, here)
    if not differing:
        return
    shown = [f"{key}={there} there, {here} here" for key, there, here in differing[:SHOWN]]
    if len(differing) > SHOWN:
        shown.append(f"{len(differing) - SHOWN} keys more")
    raise UserError(
        f"{folder} holds a run of another config ({'; '.join(shown)}); "
        "take another folder (hydra.run.dir=...) or remove that one"
    )


def differences(
    there: Mapping[Any, Any], here: Mapping[Any, Any]
) -> list[tuple[str, str | None, str | None]]:
    """Dotted key and both values, as JSON, wherever two resolved configs make other runs.

    A key that one of them lacks is null there.
    """
    a, b = (dict(counted(mask_config(to_json_types(config)))) for config in (there, here))
    pairs = [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])]
    return [(key, json.dumps(x), json.dumps(y)) for key, x, y in pairs if x != y]


def counted(config: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """The dotted keys that count, each with its value."""
    yield from _leaves(significant_part(config))


def significant_part(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The part of a config that makes a run another run, without empty groups."""
    kept = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in IGNORED:
            continue
        if key == "trainer.devices":
            value = number_of_devices(value)
        elif prefix == "callbacks.":
            value = _without_ignored_options(value)
        if isinstance(value, Mapping):
            value = significant_part(value, f"{key}.")
        if value != {}:
            kept[str(name)] = value
    return kept


def _without_ignored_options(callback: Any) -> Any:
    """A callback's config; empty if no option is left that counts."""
    target = callback.get("_target_") if isinstance(callback, Mapping) else None
    if target not in IGNORED_CALLBACKS:
        return callback
    ignored = IGNORED_CALLBACKS[target]
    if ignored is None:
        return {}
    left = {name: value for name, value in callback.items() if name not in ignored}
    return {} if set(left) == {"_target_"} else left


def number_of_devices(devices: Any) -> Any:
    """How many devices ``trainer.devices`` asks for: which ones they are changes no result.

    ``2``, ``"2"``, ``[0, 3]`` and ``"0,3"`` -> 2; what the machine decides (-1, auto) stays.
    """
    if isinstance(devices, str) and "," in devices:
        devices = [number for number in devices.split(",") if number.strip()]
    if isinstance(devices, list):
        return len(devices)
    return int(devices) if isinstance(devices, str) and devices.isdecimal() else devices


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


HASH_DIGITS = 12  # digits of a hash in a message
RESUME_HINT = "put the run's weights back, or take another folder (hydra.run.dir=... or sweep=...)"


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
            f"{path}: trained with another teacher: SHA-256 {kept[:HASH_DIGITS]} from "
            f"{source(kept_spec)} there, {here[:HASH_DIGITS]} from {source(spec)} here; {way_out}"
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
