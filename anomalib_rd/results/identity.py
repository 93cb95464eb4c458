"""Identity of a run: the config keys by which folder names, skipping and resuming tell runs apart.

Every key of the config is significant except those listed here, which do not affect results. The
teacher's weights are significant too: checkpoints do not contain them, and another teacher of the
same shapes makes all scores wrong. So checkpoints, records and exported files contain the SHA-256
of the teacher's state (`anomalib_rd.networks.teacher.state_sha256`).
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

# Key -> why its value does not affect results. A group stands for all its keys.
IGNORED_KEYS = {
    "hydra": "how jobs are launched, and where Hydra writes",
    "sweep": "the name of a folder and of a W&B group",
    "name": "the name of a folder and of a W&B run",
    "run_dir": "where the run writes",
    "logger": "loggers only receive values",
    "report": "drawn after the evaluation",
    "data.num_workers": "the process that reads an image does not change the image",
    "speed.image_cache": "caches the decoded pixels",
    "speed.feature_cache": "caches the teacher's features",
    "trainer.default_root_dir": "where Lightning writes",
    "trainer.enable_progress_bar": "displayed during training",
    "trainer.enable_model_summary": "displayed before training",
    "trainer.log_every_n_steps": "how often loggers receive values",
}
# Callback class -> its options that do not affect results, with reasons; None: all of them. All
# options of any other class are significant.
IGNORED_CALLBACKS: dict[str, dict[str, str] | None] = {
    "lightning.pytorch.callbacks.RichProgressBar": None,
    "lightning.pytorch.callbacks.TQDMProgressBar": None,
    "anomalib_rd.training.checkpoints.LastCheckpoint": {
        "every_s": "how often an unfinished run is saved: a resumed run ends with the same bits",
        "dirpath": "where checkpoints are written",
        "filename": "where checkpoints are written",
        "enable_version_counter": "where checkpoints are written",
    },
}
# Compared without resolving interpolations such as ${oc.env:MVTEC_ROOT}, so that the data folder
# may differ between machines. The fingerprint identifies the images.
UNRESOLVED_KEYS = {"data.root", "data.source.root"}
MAX_DIFFERENCES = 3  # in a message
HASH_DIGITS = 12  # in a message
RESUME_HINT = "restore the run's weights, or choose another folder (hydra.run.dir=... or sweep=...)"


def config_digest(cfg: DictConfig) -> str:
    """Eight hex digits that differ if and only if the configs of two runs differ significantly.

    Interpolations are resolved, except `UNRESOLVED_KEYS` and those that cannot be resolved yet.
    """
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)
    raw.pop("hydra", None)
    # An ignored key must not become significant because another key interpolates it.
    fixed = {k: k for k, value in raw.items() if k in IGNORED_KEYS and isinstance(value, str)}
    settings = OmegaConf.create(raw | fixed)
    items = {
        key: value if key in UNRESOLVED_KEYS else _resolve(settings, key, value)
        for key, value in significant_items(raw)
    }
    text = json.dumps(items, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _resolve(config: DictConfig, key: str, value: Any) -> Any:
    """The resolved value of a dotted key; ``value`` if it cannot be resolved."""
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
    folder: Path, cfg: DictConfig, saved: Mapping[Any, Any], saved_digest: str | None
) -> None:
    """Refuse to skip or resume the run in a folder if its config differs significantly.

    The interpolations of ``cfg`` must be resolvable and those of ``saved`` resolved;
    ``saved_digest`` is the `config_digest` of the saved run, if known.

    Raises:
        UserError: the configs differ; the message lists the first keys and both values.
    """
    if saved_digest == config_digest(cfg):
        return
    current = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(current, dict)
    differing = find_differences(saved, current)
    if not differing:
        return
    parts = [f"{key}: saved {old}, now {new}" for key, old, new in differing]
    if len(parts) > MAX_DIFFERENCES:
        parts[MAX_DIFFERENCES:] = [f"{len(parts) - MAX_DIFFERENCES} more keys"]
    raise UserError(
        f"{folder} contains a run with another config ({'; '.join(parts)}); "
        "choose another folder (hydra.run.dir=...) or remove this one"
    )


def find_differences(
    saved: Mapping[Any, Any], current: Mapping[Any, Any]
) -> list[tuple[str, str, str]]:
    """Dotted key and both values as JSON (missing: null) of each significant difference."""
    a, b = (
        dict(significant_items(mask_config(to_json_types(config)))) for config in (saved, current)
    )
    pairs = [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])]
    return [(key, json.dumps(x), json.dumps(y)) for key, x, y in pairs if x != y]


def significant_items(config: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Significant dotted keys with their values."""
    return flatten(significant_part(config))


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a nested config with their values."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def significant_part(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The significant part of a config, without empty groups."""
    part = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in IGNORED_KEYS:
            continue
        if key == "trainer.devices":
            value = number_of_devices(value)
        elif prefix == "callbacks.":
            value = _significant_options(value)
        if isinstance(value, Mapping):
            value = significant_part(value, f"{key}.")
        if value != {}:
            part[str(name)] = value
    return part


def _significant_options(callback: Any) -> Any:
    """A callback's config without ignored options; empty if only its class remains."""
    target = callback.get("_target_") if isinstance(callback, Mapping) else None
    if target not in IGNORED_CALLBACKS:
        return callback
    ignored = IGNORED_CALLBACKS[target]
    if ignored is None:
        return {}
    options = {name: value for name, value in callback.items() if name not in ignored}
    return {} if set(options) == {"_target_"} else options


def number_of_devices(devices: Any) -> Any:
    """Number of devices in ``trainer.devices``; which devices these are does not affect results.

    ``2``, ``"2"``, ``[0, 3]`` and ``"0,3"`` -> 2; -1 and auto are returned unchanged.
    """
    if isinstance(devices, str) and "," in devices:
        devices = [number for number in devices.split(",") if number.strip()]
    if isinstance(devices, list):
        return len(devices)
    return int(devices) if isinstance(devices, str) and devices.isdecimal() else devices


def require_same_teacher(
    path: Path,
    saved: str | None,
    current: str,
    saved_spec: Mapping[str, Any],
    spec: Mapping[str, Any],
    hint: str,
) -> None:
    """Refuse a teacher whose state differs from that of the run's teacher.

    Args:
        path: checkpoint or record of the run.
        saved: hash of the run's teacher; without it, a warning is logged.
        current: hash of the current teacher.
        saved_spec: ``model.teacher`` of the run: ``name, weights``.
        spec: ``model.teacher`` of the current config.
        hint: remedy for the message.

    Raises:
        UserError: the hashes differ; the message contains both, and the sources of the weights.
    """
    new, old = (f"{s.get('name')} ({s.get('weights')})" for s in (spec, saved_spec))
    if saved is None:
        log.warning("%s: contains no hash of its teacher; make sure that it was %s", path, new)
    elif saved != current:
        raise UserError(
            f"{path}: trained with another teacher: saved SHA-256 {saved[:HASH_DIGITS]} of {old}, "
            f"now {current[:HASH_DIGITS]} of {new}; {hint}"
        )


def weights_file_sha256(spec: Mapping[str, Any]) -> str | None:
    """SHA-256 of a teacher's weights file; None if the weights are not from a file."""
    path = Path(str(spec.get("weights")))
    if not path.is_file():
        return None
    stat = path.stat()
    return _sha256_cached(path.absolute(), stat.st_mtime_ns, stat.st_size)


# Every job of a sweep needs the hash of the same file.
@functools.lru_cache(maxsize=8)
def _sha256_cached(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001
    return sha256_file(path)
