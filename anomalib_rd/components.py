"""Objects from a config, and what a config from elsewhere may name.

A config names its parts by ``_target_``. `build` makes our own parts from a table of our classes
and plain keyword arguments. Any other name is code from elsewhere, which Hydra's ``instantiate``
runs: fine in a config that the user wrote, but a checkpoint or a record can come from anyone. Such
a config goes through the checks below before anything is built from it:

- `require_plain`: a resolved config holds plain values and no interpolation;
- `require_known_interpolations`: a config as it was written uses harmless interpolations only;
- `require_known_code`: each ``_target_`` stands where this table allows it.
"""

import functools
import inspect
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from anomalib_rd.data.sources.layouts import LAYOUTS
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import expand_home, one_line

_NETWORKS, _SCORING, _DATA = "anomalib_rd.networks", "anomalib_rd.scoring", "anomalib_rd.data"
_CALLBACKS, _LOGGERS = "lightning.pytorch.callbacks", "lightning.pytorch.loggers"
_AVERAGES = ("EMAWeightAveraging", "StochasticWeightAveraging", "WeightAveraging")


def _names(module: str, *classes: str) -> set[str]:
    return {f"{module}.{name}" for name in classes}


OWN_PARTS = {
    "model.teacher": _names(_NETWORKS, "Teacher"),
    "model.masking": _names(_NETWORKS, "FeatureMasking", "NoMasking"),
    "model.fusion": _names(_NETWORKS, "Fusion"),
    "model.student": _names(_NETWORKS, "Student"),
    "model.scoring": _names(_SCORING, "AnomalyScorer", "StandardisedScorer"),
    "model.tiling": _names(_SCORING, "Tiling"),
    "loss": _names(_NETWORKS, "FlattenedCosine", "HardCosine", "PixelCosine"),
    "data.source": _names(_DATA, "Demo", "Folder", "VisA", *LAYOUTS),
}
"""Key -> our classes that may stand there. `build` makes them without Hydra."""
OTHER_PARTS = {
    # None that takes a folder to write to, or a function.
    "callbacks.*": {
        "anomalib_rd.training.checkpoints.LastCheckpoint",
        *_names(_CALLBACKS, *_AVERAGES, "DeviceStatsMonitor", "EarlyStopping"),
        *_names(_CALLBACKS, "GradientAccumulationScheduler", "LearningRateMonitor"),
        *_names(_CALLBACKS, "ModelSummary", "RichModelSummary", "RichProgressBar"),
        *_names(_CALLBACKS, "TQDMProgressBar", "Timer"),
    },
    "logger.*": {
        "anomalib_rd.tracking.wandb_logger.wandb_logger",
        *_names(_LOGGERS, "CSVLogger", "MLFlowLogger", "TensorBoardLogger"),
    },
    "trainer": _names("lightning.pytorch", "Trainer"),
    "trainer.profiler": _names("lightning.pytorch.profilers", "SimpleProfiler"),
    "trainer.strategy": _names("lightning.pytorch.strategies", "DDPStrategy"),
}
"""The same for what Hydra makes: exact names, for their modules hold much that runs code."""
FAMILIES = {
    "optimizer": ("torch.optim", "Optimizer"),
    "scheduler": ("torch.optim.lr_scheduler", "LRScheduler"),
    "data.transform": ("torchvision.transforms.v2", "Transform"),
}
"""Key -> (module, base class): any class of the module that derives from it may stand there."""
NESTED = "data.transform."
"""Transforms hold transforms; nothing else of the table holds another ``_target_``."""
MAPPINGS = ("data", "model", "optimizer", "loss", "trainer", "speed", "callbacks", "logger")
"""Parts of any config that hold keys."""

RESOLVERS = ("oc.env", "hydra", "now", "stem", "set_name", "config_hash")
# Each interpolation, nested ones too, begins with "${": what follows must be one of these.
_HARMLESS = re.compile(
    rf"\$\{{(?:(?:{'|'.join(map(re.escape, RESOLVERS))}):|[\w.\-]+(?:\[\w+\][\w.\-]*)*\}})"
)
_TIMM_NAME = re.compile(r"[\w.\-]+")
_HYDRAS = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}
DEPTH = 40
FOLDERS = {"dirpath", "save_dir", "default_root_dir", "tracking_uri", "artifact_location"}
"""Options of callbacks, loggers and trainer that are folders, from the working folder on."""


def build(spec: Any, key: str, trust: bool = True) -> Any:
    """Make the part of a config that stands under a key.

    Args:
        spec: the part, with its ``_target_``; null or empty for none.
        key: where it stands, such as ``model.teacher``.
        trust: whether it may name code from outside of `OWN_PARTS`, which Hydra then runs.

    Returns:
        The object; with ``_partial_`` a callable that makes it; None where the part is empty.

    Raises:
        UserError: the arguments do not fit, or without ``trust`` what is named is not ours.
    """
    from omegaconf import OmegaConf

    values = spec
    if OmegaConf.is_config(spec):
        values = OmegaConf.to_container(spec, resolve=True, throw_on_missing=True)
    if not values:
        return None
    if not _is_own(values, key):
        if not trust:
            named = values.get("_target_") if isinstance(values, Mapping) else values
            raise UserError(f"{key}={named}: none of anomalib-rd's own; see --trust")
        from hydra.utils import instantiate

        return instantiate(spec)
    made = _found(values["_target_"])
    args = list(values.get("_args_", ()))
    kwargs = {name: value for name, value in values.items() if name not in _HYDRAS}
    if not values.get("_partial_"):
        return _construct(made, key, *args, **kwargs)
    try:
        inspect.signature(made).bind_partial(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{key}: {values['_target_']}: {one_line(error)}") from error
    return functools.partial(_construct, made, key, *args, **kwargs)


def _construct(cls: Any, key: str, /, *args: Any, **kwargs: Any) -> Any:
    """Construct an object; errors name the config key, such as ``model.masking.ratio=2: ...``."""
    try:
        return cls(*args, **kwargs)
    except (UserError, OSError):
        raise
    except Exception as error:  # values that a class does not expect
        message = one_line(error)
        # Our classes raise ValueError("parameter=value: reason").
        if message.partition("=")[0] in inspect.signature(cls).parameters:
            raise UserError(f"{key}.{message}") from error
        raise UserError(f"{key}: {cls.__name__}: {message}") from error


def require_plain(path: Path, config: Any) -> None:
    """Refuse a resolved config that holds anything but plain values.

    OmegaConf would resolve an interpolation in it, and that can make a ``_target_`` of a text.

    Raises:
        UserError: naming the key, whatever the user trusts.
    """
    for key, value in leaves(path, config):
        if "${" in key or (isinstance(value, str) and "${" in value):
            raise UserError(
                f"{path}: its config holds an interpolation ({key[:80]}={str(value)[:80]}), which "
                "a resolved config never does; get the file anew from where it was made"
            )
        if type(value) not in (type(None), bool, int, float, str):
            raise UserError(
                f"{path}: its config holds {type(value).__name__} ({key}), not a plain value"
            )


def require_known_interpolations(path: Path, config: Any) -> None:
    """Refuse a config as written with interpolations other than plain keys and `RESOLVERS`.

    Raises:
        UserError: naming the key.
    """
    for key, value in leaves(path, config):
        text = value if isinstance(value, str) else ""
        harmless = all(_HARMLESS.match(text, one.start()) for one in re.finditer(r"\$\{", text))
        # An escaped one is text at first, and an interpolation when it is read again.
        if "${" in key or not harmless or "\\${" in text:
            raise UserError(
                f"{path}: its config has an interpolation that could have code run "
                f"({key[:80]}={text[:80]}); allowed are keys and {', '.join(RESOLVERS)}; if you "
                "know the file, add --trust"
            )


def require_known_code(path: Path, config: Mapping[str, Any], trust: bool) -> None:
    """Refuse a config that would have code from outside of this project run.

    Args:
        path: the file that it is from.
        config: all of it, or some of its parts under their keys.
        trust: whether the user knows the code.

    Raises:
        UserError: naming it, unless ``trust``.
    """
    if trust:
        return
    foreign = next((f"{k}._target_={t}" for k, t in targets(config) if not is_known(k, t)), None)
    # timm takes addresses too, and a model from there brings settings of its own.
    model = config.get("model") or {}
    teacher = model.get("teacher") if isinstance(model, Mapping) else None
    name = teacher.get("name") if isinstance(teacher, Mapping) else None
    written = "${" in str(name)  # checked again when it is resolved
    if foreign is None and name is not None and not (written or _TIMM_NAME.fullmatch(str(name))):
        foreign = f"model.teacher.name={name}"
    if foreign is not None:
        raise UserError(
            f"{path}: its config names code from outside of anomalib-rd ({foreign[:160]}); if you "
            "know it, add --trust (load_run(..., trust=True))"
        )


def require_inside(
    path: Path, config: Mapping[str, Any], folders: Sequence[Path], given: Collection[str] = ()
) -> None:
    """Refuse a resolved config whose callbacks, loggers or trainer would write elsewhere.

    Args:
        path: the file that it is from.
        config: all of it.
        folders: where they may write.
        given: keys that the user set, and knows.

    Raises:
        UserError: naming the key.
    """
    allowed = [folder.absolute() for folder in folders]
    writing = {part: config.get(part) for part in ("callbacks", "logger", "trainer")}
    for key, value in leaves(path, writing):
        if not isinstance(value, str) or key in given:
            continue
        # TensorBoard's logger expands environment variables.
        place = expand_home(os.path.expandvars(value))
        if key.rpartition(".")[2] in FOLDERS:  # relative to the working folder, names are not
            place = place.absolute()
        elsewhere = place.is_absolute() and not any(place.is_relative_to(f) for f in allowed)
        if elsewhere or ".." in place.parts or "://" in value:
            raise UserError(
                f"{path}: its config would write outside of the run's folder ({key}={value[:80]}); "
                f"set {key}=... yourself, or add --trust"
            )


def require_data_there(path: Path, config: Mapping[str, Any], given: Collection[str] = ()) -> None:
    """Refuse a resolved config that would make the demo data set in a folder of its choice.

    Args:
        path: the file that it is from.
        config: all of it.
        given: keys that the user set, and knows.

    Raises:
        UserError: naming the folder.
    """
    source = config["data"]["source"]
    root = source.get("root") if isinstance(source, Mapping) else None
    if root is None or source.get("_target_") != f"{_DATA}.Demo":
        return
    place = expand_home(str(root))
    there = place.is_dir() and any(place.iterdir())
    if not there and {"data", "data.root", "data.source.root"}.isdisjoint(given):
        raise UserError(
            f"{path}: its config would make the demo data set in a new folder "
            f"(data.root={str(root)[:200]}); set data.root=null or another, or add --trust"
        )


def require_mappings(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a run's config without the parts that hold keys in every run.

    Raises:
        UserError: naming the part.
    """
    for key in MAPPINGS:
        if not isinstance(config.get(key), Mapping):
            raise UserError(f"{path}: {key} in its config must hold keys and values")


def is_known(key: str, target: Any) -> bool:
    """Whether a ``_target_`` may stand under a key."""
    if not isinstance(target, str):
        return False
    if key.startswith(NESTED):
        key = NESTED.rstrip(".")
    if key in FAMILIES:
        module, base = FAMILIES[key]
        name = target.removeprefix(f"{module}.")
        if target == name or not name.isidentifier():
            return False
        library = import_module(module)
        found = getattr(library, name, None)
        return isinstance(found, type) and issubclass(found, getattr(library, base))
    parts = OWN_PARTS | OTHER_PARTS
    group = key.rpartition(".")[0]
    return target in (parts.get(key) or parts.get(f"{group}.*", set()))


def targets(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The key of each part that the config would have made, with its ``_target_``."""
    items: Any = ()
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield key, config["_target_"]
        items = config.items()
    elif isinstance(config, list | tuple):
        items = enumerate(config)
    for name, value in items:
        yield from targets(value, f"{key}.{name}" if key else str(name))


def leaves(path: Path, config: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """All values that are no containers, each with its dotted key.

    Raises:
        UserError: the config is nested deeper than `DEPTH`, or within itself.
    """
    if depth > DEPTH:
        raise UserError(f"{path}: its config is nested deeper than {DEPTH} levels ({key[:80]})")
    # Exact types: others may have methods of their own.
    if type(config) is dict:
        for name, value in config.items():
            if not isinstance(name, str):
                raise UserError(f"{path}: its config has a key that is no text ({key}: {name!r})")
            inner = f"{key}.{name}" if key else name
            if not value and isinstance(value, dict | list):
                yield inner, None  # the key itself is to be looked at
            yield from leaves(path, value, inner, depth + 1)
    elif type(config) is list:
        for number, value in enumerate(config):
            yield from leaves(path, value, f"{key}.{number}", depth + 1)
    else:
        yield key, config


def _is_own(values: Any, key: str) -> bool:
    """Whether the part is one of our classes and its arguments name nothing else."""
    if not isinstance(values, Mapping) or not isinstance(values.get("_target_"), str):
        return False
    inside = sum(1 for _ in targets(values))
    return inside == 1 and values["_target_"] in OWN_PARTS.get(key, set())


def _found(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)
