"""Checks of overrides before anything starts; the config files' values define the types."""

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from anomalib_rd.cli.config import (
    compose_config,
    conf_dir,
    config_folder,
    is_group,
    parse_overrides,
)
from anomalib_rd.cli.errors import did_you_mean, trainer_keys
from anomalib_rd.cli.overrides import (
    CATEGORY,
    NEVER_NULL,
    POINT,
    TRAINER_ARGUMENTS,
    quote_overrides,
    require_current_config,
    require_text,
)
from anomalib_rd.errors import UserError

ANY_TYPE = {CATEGORY, "trainer.devices", "trainer.deterministic"}
# An empty text is usually a shell variable that is not set.
NEVER_EMPTY = {"sweep", "name", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
# Names that a config file may have as numbers by mistake.
NAMES = [
    *sorted(key for key in NEVER_NULL if not key.startswith("hydra.")),
    "data.root",
    *(f"data.source.{key}" for key in ("root", "normal", "defect", "masks", "normal_test")),
    "data.source.textures",
]
OPTIONAL_GROUPS = {"experiment", "study", POINT, "hparams_search", "debug"}
# Null is allowed although the default of some choice is a number.
NULLABLE = {
    *("data.num_workers", "metrics.max_bins", "model.ema_decay", "model.fusion.depth"),
    *("model.masking.complements", "model.tiling.size", "speed.fused", "threshold.train_images"),
}


def check_overrides(arguments: list[str]) -> None:
    """Compare the overrides with the types of the values that they replace.

    Raises:
        UserError: such as a text for a number, or a missing folder of configs.
    """
    arguments = quote_overrides(arguments)
    overrides = list(parse_overrides(arguments).values())
    folder = config_folder(arguments)
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"--config-dir {folder}: this folder does not exist")
    for override in overrides:
        _require_trainer_argument(override)
        if override.key_or_group in NEVER_EMPTY:
            for value in _single_values(override):
                _require_folder_name(override.key_or_group, value)
    groups = [o for o in overrides if is_group(o.key_or_group, folder)]
    for override in groups:
        _require_choice(override)
    base = compose_config([_first_choice(o) for o in groups if o.value() is not None], folder)
    check_types([o for o in overrides if o not in groups], base)


def _require_trainer_argument(override: Any) -> None:
    """Refuse unknown arguments of Lightning's Trainer, and those that a group sets."""
    part, _, name = override.key_or_group.partition(".")
    name = name.partition(".")[0]
    if part != "trainer" or not name or name.startswith("_"):
        return
    if name in ("callbacks", "logger"):
        raise UserError(f"{override.input_line}: set by the group {name}, such as {name}=none")
    if name not in TRAINER_ARGUMENTS and override.is_add():
        raise UserError(
            f"{override.input_line}: Lightning's Trainer has no argument '{name}'"
            f"{did_you_mean(f'trainer.{name}', trainer_keys())}"
        )


def _require_folder_name(key: str, value: Any) -> None:
    """Refuse empty names, and a sweep name that is no folder name."""
    text = str(getattr(value, "text", value))
    if not text.strip():
        raise UserError(f"{key} is empty; give a name, or check the shell variable in it")
    if key == "sweep" and not {"", ".", ".."}.isdisjoint(text.split("/")):
        raise UserError(f"{key}={text}: must be the name of a folder in multirun/")


def check_config(cfg: DictConfig) -> None:
    """Check the composed config: names that are numbers, keys of older versions.

    Raises:
        UserError: such as ``category: 1.10`` in a config file, which is the number 1.1.
    """
    require_current_config("a config file", OmegaConf.to_container(cfg))  # type: ignore[arg-type]
    for key in NAMES:
        value = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
        for item in value if isinstance(value, ListConfig) else [value]:
            require_text(key, item)
    _require_folder_name("sweep", cfg.sweep)


def check_types(overrides: list[Any], base: DictConfig) -> None:
    """Compare the types of overrides with those of a config.

    Raises:
        UserError: naming the first that differs.
    """
    for override in overrides:
        key = override.key_or_group
        if override.is_delete():
            _require_deletable(key, base)
            continue
        if key in ANY_TYPE or key.startswith("hydra."):
            continue
        default = OmegaConf.select(base, key, throw_on_resolution_failure=False)
        needed = isinstance(default, bool | int | float | ListConfig)
        for value in _single_values(override):
            if value is None and needed and key not in NULLABLE and not key.startswith("trainer."):
                raise UserError(f"{key}=null: needs a value, such as {default}")
            if kind := _expected_type(default, value):
                raise UserError(f"{key}={value}: must be {kind}, such as {default}")


def _expected_type(default: Any, value: Any) -> str | None:
    """The type that the value should have, or None if it fits; a default of None accepts any."""
    if value is None or (isinstance(value, str) and "${" in value):
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # bool before int: it is one.
    for kind, fits, name in (
        (bool, isinstance(value, bool), "true or false"),
        (int, number and isinstance(value, int), "a whole number"),
        (float, number and not math.isnan(value), "a number"),
        (ListConfig, isinstance(value, list), "a list"),
        (DictConfig, isinstance(value, dict), "keys and values {a: 1}, or null"),
        (str, not isinstance(value, list | dict), "one value"),
    ):
        if isinstance(default, kind):
            return None if fits else name
    return None


def _require_deletable(key: str, base: DictConfig) -> None:
    """Refuse to delete a key that a run reads: all but loggers, callbacks, class arguments."""
    parent, _, name = key.rpartition(".")
    if not parent and name not in base:
        return  # Hydra reports this error
    node = OmegaConf.select(base, parent) if parent else base
    free = parent in ("logger", "callbacks") or parent.startswith("hydra")
    if free or not isinstance(node, DictConfig) or ("_target_" in node and name != "_target_"):
        return
    raise UserError(f"~{key}: a run reads this key; set it to another value instead of deleting it")


def _require_choice(override: Any) -> None:
    """Refuse a value that is not the name of a choice, and deleting a required group."""
    group = override.key_or_group
    if not group:
        raise UserError(f"{override.input_line}: not an override; write KEY=VALUE")
    if override.is_delete():
        names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        if names and group not in OPTIONAL_GROUPS:
            choices = "|".join(name for name in names if name != "base")
            raise UserError(f"~{group}: a run needs one; choose {group}={choices}")
        return
    for value in _single_values(override):
        if not isinstance(value, str | list | dict):
            raise UserError(
                f"{override.input_line}: '{group}' needs the name of a choice; omit it, or set "
                f"one of its keys, {group}.KEY=..."
            )


def _single_values(override: Any) -> list[Any]:
    """The values of an override or of its sweep; empty for the interval of a search."""
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        return []
    try:
        values = list(override.sweep_iterator())
    except ValueError as error:  # such as a range with a step of 0
        raise UserError(f"{override.input_line}: {error}") from error
    if not values:
        raise UserError(f"{override.input_line}: has no values")
    return values


def _first_choice(override: Any) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    return f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"
