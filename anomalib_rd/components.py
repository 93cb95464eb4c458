"""Objects from a config, and checks of configs from files.

A config names its parts by ``_target_``. `build` makes our own parts from a table of our classes
and plain keyword arguments. Any other name is foreign code, which Hydra's ``instantiate`` executes:
fine in the user's own config, but anyone can send a checkpoint or a record. A config from such a
file passes these checks before anything is built from it:

- `require_plain`: a resolved config holds plain values and no interpolation;
- `require_known_interpolations`: a config as written uses harmless interpolations only;
- `require_known_code`: each ``_target_`` is allowed under its key by the tables below.
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
"""Key -> our classes allowed there. `build` makes them without Hydra."""
OTHER_PARTS = {
    # None of them takes an output folder or a function.
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
"""The same for objects that Hydra makes: exact names, as their modules can execute code."""
FAMILIES = {
    "optimizer": ("torch.optim", "Optimizer"),
    "scheduler": ("torch.optim.lr_scheduler", "LRScheduler"),
    "data.transform": ("torchvision.transforms.v2", "Transform"),
}
"""Key -> (module, base class): any subclass in the module is allowed there."""
NESTED = "data.transform."
"""Transforms may contain transforms; nothing else in the tables contains a ``_target_``."""
MAPPINGS = ("data", "model", "optimizer", "loss", "trainer", "speed", "callbacks", "logger")
"""Sections of every config."""

RESOLVERS = ("oc.env", "hydra", "now", "stem", "set_name", "config_hash")
# After each "${", also a nested one, one of these must follow.
_HARMLESS = re.compile(
    rf"\$\{{(?:(?:{'|'.join(map(re.escape, RESOLVERS))}):|[\w.\-]+(?:\[\w+\][\w.\-]*)*\}})"
)
_TIMM_NAME = re.compile(r"[\w.\-]+")
_HYDRA_KEYS = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}
MAX_DEPTH = 40
FOLDERS = {"dirpath", "save_dir", "default_root_dir", "tracking_uri", "artifact_location"}
"""Options of callbacks, loggers and trainer that are folders, relative to the working folder."""


def build(spec: Any, key: str, trust: bool = True) -> Any:
    """Make the part of a config under a key.

    Args:
        spec: the part, with its ``_target_``; null or empty for none.
        key: of the part, such as ``model.teacher``.
        trust: whether it may name code outside of `OWN_PARTS`, which Hydra then executes.

    Returns:
        The object; with ``_partial_`` a callable that makes it; None if the part is empty.

    Raises:
        UserError: invalid arguments, or foreign code without ``trust``.
    """
    from omegaconf import OmegaConf

    values = spec
    if OmegaConf.is_config(spec):
        values = OmegaConf.to_container(spec, resolve=True, throw_on_missing=True)
    if not values:
        return None
    target = values.get("_target_") if isinstance(values, Mapping) else values
    own = isinstance(target, str) and target in OWN_PARTS.get(key, ())
    # Only the part itself may have a _target_, none of its arguments.
    if not own or len(list(targets(values))) != 1:
        if not trust:
            raise UserError(f"{key}={target}: not a class of anomalib-rd; see --trust")
        from hydra.utils import instantiate

        return instantiate(spec)
    module, _, name = str(target).rpartition(".")
    cls = getattr(import_module(module), name)
    args = list(values.get("_args_", ()))
    kwargs = {name: value for name, value in values.items() if name not in _HYDRA_KEYS}
    if not values.get("_partial_"):
        return _construct(cls, key, *args, **kwargs)
    try:
        inspect.signature(cls).bind_partial(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{key}: {target}: {one_line(error)}") from error
    return functools.partial(_construct, cls, key, *args, **kwargs)


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
    """Refuse a resolved config with anything but plain values.

    OmegaConf would resolve an interpolation in it, which can turn a text into a ``_target_``.

    Raises:
        UserError: naming the key, even if the user trusts the file.
    """
    for key, value in leaves(path, config):
        if "${" in key or (isinstance(value, str) and "${" in value):
            raise UserError(
                f"{path}: its config contains an interpolation ({key[:80]}={str(value)[:80]}), "
                "which a resolved config never has; get the file again from its source"
            )
        if type(value) not in (type(None), bool, int, float, str):
            raise UserError(
                f"{path}: its config contains {type(value).__name__} ({key}), not a plain value"
            )


def require_known_interpolations(path: Path, config: Any) -> None:
    """Refuse a config as written with interpolations other than keys and `RESOLVERS`.

    Raises:
        UserError: naming the key.
    """
    for key, value in leaves(path, config):
        text = value if isinstance(value, str) else ""
        harmless = all(_HARMLESS.match(text, m.start()) for m in re.finditer(r"\$\{", text))
        # An escaped one is text at first, and an interpolation when it is read again.
        if "${" in key or not harmless or "\\${" in text:
            raise UserError(
                f"{path}: its config has an interpolation that could execute code "
                f"({key[:80]}={text[:80]}); allowed are keys and {', '.join(RESOLVERS)}; if you "
                "trust the file, add --trust"
            )


def require_known_code(path: Path, config: Mapping[str, Any], trust: bool) -> None:
    """Refuse a config that names code outside of this project, unless ``trust``.

    Args:
        path: of the file, for errors.
        config: all of it, or some of its parts under their keys.
        trust: whether the user trusts the code.

    Raises:
        UserError: naming it.
    """
    if trust:
        return
    foreign = next((f"{k}._target_={t}" for k, t in targets(config) if not is_known(k, t)), None)
    # timm also accepts addresses, and a model from there brings its own settings.
    model = config.get("model") or {}
    teacher = model.get("teacher") if isinstance(model, Mapping) else None
    name = teacher.get("name") if isinstance(teacher, Mapping) else None
    unresolved = "${" in str(name)  # checked again once it is resolved
    if foreign is None and name is not None and not (unresolved or _TIMM_NAME.fullmatch(str(name))):
        foreign = f"model.teacher.name={name}"
    if foreign is not None:
        raise UserError(
            f"{path}: its config names code outside of anomalib-rd ({foreign[:160]}); if you trust "
            "it, add --trust (load_run(..., trust=True))"
        )


def require_inside(
    path: Path, config: Mapping[str, Any], folders: Sequence[Path], overridden: Collection[str] = ()
) -> None:
    """Refuse a resolved config whose callbacks, loggers or trainer would write elsewhere.

    Args:
        path: of the file, for errors.
        config: all of it.
        folders: allowed output folders.
        overridden: keys that the user has set.

    Raises:
        UserError: naming the key.
    """
    allowed = [folder.absolute() for folder in folders]
    writing = {part: config.get(part) for part in ("callbacks", "logger", "trainer")}
    for key, value in leaves(path, writing):
        if not isinstance(value, str) or key in overridden:
            continue
        # TensorBoard's logger expands environment variables.
        target = expand_home(os.path.expandvars(value))
        if key.rpartition(".")[2] in FOLDERS:  # other values are names, not relative paths
            target = target.absolute()
        outside = target.is_absolute() and not any(target.is_relative_to(f) for f in allowed)
        if outside or ".." in target.parts or "://" in value:
            raise UserError(
                f"{path}: its config would write outside of the run's folder ({key}={value[:80]}); "
                f"set {key}=... yourself, or add --trust"
            )


def require_existing_data(
    path: Path, config: Mapping[str, Any], overridden: Collection[str] = ()
) -> None:
    """Refuse a resolved config that would create the demo data set in a folder of its choice.

    Args:
        path: of the file, for errors.
        config: all of it.
        overridden: keys that the user has set.

    Raises:
        UserError: naming the folder.
    """
    source = config["data"]["source"]
    root = source.get("root") if isinstance(source, Mapping) else None
    if root is None or source.get("_target_") != f"{_DATA}.Demo":
        return
    folder = expand_home(str(root))
    exists = folder.is_dir() and any(folder.iterdir())
    if not exists and {"data", "data.root", "data.source.root"}.isdisjoint(overridden):
        raise UserError(
            f"{path}: its config would create the demo data set in a new folder "
            f"(data.root={str(root)[:200]}); set data.root=null or another folder, or add --trust"
        )


def require_mappings(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a run's config without one of the sections of every run.

    Raises:
        UserError: naming the section.
    """
    for key in MAPPINGS:
        if not isinstance(config.get(key), Mapping):
            raise UserError(f"{path}: {key} in its config must hold keys and values")


def is_known(key: str, target: Any) -> bool:
    """Whether a ``_target_`` is allowed under a key."""
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
        cls = getattr(library, name, None)
        return isinstance(cls, type) and issubclass(cls, getattr(library, base))
    parts = OWN_PARTS | OTHER_PARTS
    group = key.rpartition(".")[0]
    return target in (parts.get(key) or parts.get(f"{group}.*", set()))


def targets(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Key and ``_target_`` of each part that has one."""
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
    """All values that are not containers, each with its dotted key.

    Raises:
        UserError: nesting deeper than `MAX_DEPTH`, which includes cycles.
    """
    if depth > MAX_DEPTH:
        raise UserError(f"{path}: its config is nested deeper than {MAX_DEPTH} levels ({key[:80]})")
    # Exact types: subclasses may have methods of their own.
    if type(config) is dict:
        for name, value in config.items():
            if not isinstance(name, str):
                raise UserError(f"{path}: its config has a key that is not text ({key}: {name!r})")
            inner = f"{key}.{name}" if key else name
            if not value and isinstance(value, dict | list):
                yield inner, None  # so that the key itself is checked
            yield from leaves(path, value, inner, depth + 1)
    elif type(config) is list:
        for number, value in enumerate(config):
            yield from leaves(path, value, f"{key}.{number}", depth + 1)
    else:
        yield key, config
