"""Values of the wrong type are refused before anything starts."""

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from anomalib_rd.cli.categories import KEY, composed, config_folder, parsed
from anomalib_rd.cli.config import conf_dir
from anomalib_rd.cli.errors import did_you_mean, trainer_keys
from anomalib_rd.cli.trainer_arguments import SET_ELSEWHERE, TRAINER_ARGUMENTS
from anomalib_rd.cli.words import NEVER_NULL, as_typed, require_text
from anomalib_rd.errors import UserError

# Of Lightning's own flags those that take values of several types.
OPEN = {KEY, "trainer.devices", "trainer.deterministic"}
# Names and folders for which an empty text is a mistake, usually of an unset variable.
NEVER_EMPTY = {"sweep", "name", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
# Names of the config, beside those of the overrides, that a config file may have as numbers.
TEXTS = [
    *sorted(key for key in NEVER_NULL if not key.startswith("hydra.")),
    "data.root",
    *(f"data.source.{key}" for key in ("root", "normal", "defect", "masks", "normal_test")),
    "data.source.textures",
]
# Groups that no run needs.
OPTIONAL = {"experiment", "study", "point", "hparams_search"}
# Null by default, or where its choice says what null means.
NULLABLE = {
    "data.num_workers",
    "metrics.max_bins",
    "model.ema_decay",
    "model.fusion.depth",
    "model.masking.complements",
    "model.tiling.size",
    "speed.fused",
    "threshold.train_images",
}


def check_values(words: list[str]) -> None:
    """Hold the overrides against the types of the values that they replace.

    Raises:
        UserError: such as text for a number, or a folder of configs that is not there.
    """
    words = as_typed(words)
    overrides = list(parsed(words).values())
    folder = config_folder(words)
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"--config-dir {folder}: there is no such folder")
    for override in overrides:
        require_trainer_argument(override)
        if override.key_or_group in NEVER_EMPTY:
            for value in single_values(override):
                require_name(override.key_or_group, value)
    groups = [o for o in overrides if is_group(o, folder)]
    for override in groups:
        require_names(override)
    base = composed([one_choice(o) for o in groups if o.value() is not None], folder)
    check_types([o for o in overrides if o not in groups], base)


def require_trainer_argument(override: Any) -> None:
    """Refuse ``trainer.X`` where X is no argument of Lightning's Trainer, or set by a group.

    Raises:
        UserError: naming the likeliest argument.
    """
    part, _, name = override.key_or_group.partition(".")
    name = name.partition(".")[0]
    if part != "trainer" or not name or name.startswith("_"):
        return
    if group := SET_ELSEWHERE.get(name):
        raise UserError(f"{override.input_line}: is set by the group {group}, such as {group}=none")
    if name not in TRAINER_ARGUMENTS and override.is_add():
        raise UserError(
            f"{override.input_line}: Lightning's Trainer has no argument '{name}'"
            f"{did_you_mean(f'trainer.{name}', trainer_keys())}"
        )


def require_name(key: str, value: Any) -> None:
    """Refuse what cannot be the name of a multirun, or of a folder.

    Raises:
        UserError: such as ``sweep=``, with which all multiruns would be one.
    """
    text = str(getattr(value, "text", value))
    if not text.strip():
        raise UserError(f"{key} is empty; give a name, or check the variable that it is taken from")
    if key == "sweep" and not {"", ".", ".."}.isdisjoint(text.split("/")):
        raise UserError(f"{key}={text}: give a name, which becomes a folder below multirun/")


def require_texts(cfg: DictConfig) -> None:
    """Refuse numbers where a config needs names: YAML has read them, and they may be other names.

    Raises:
        UserError: such as ``category: 1.10`` in a config file, which is the number 1.1.
    """
    for key in TEXTS:
        value = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
        for item in value if isinstance(value, ListConfig) else [value]:
            require_text(key, item)
    require_name("sweep", cfg.sweep)


def is_group(override: Any, folder: str | None = None) -> bool:
    """Whether it chooses from a group, of ours or of the user's folder of configs."""
    places = [conf_dir(), *([Path(folder)] if folder else [])]
    return any((place / override.key_or_group).is_dir() for place in places)


def check_types(overrides: list[Any], base: DictConfig) -> None:
    """Hold overrides of keys against the values of a config.

    Raises:
        UserError: naming the first that is of another type.
    """
    for override in overrides:
        key = override.key_or_group
        if override.is_delete():
            require_deletable(key, base)
        if key in OPEN or key.startswith("hydra.") or override.is_delete():
            continue
        default = OmegaConf.select(base, key, throw_on_resolution_failure=False)
        for value in single_values(override):
            needed = isinstance(default, bool | int | float | ListConfig)
            if value is None and needed and not may_be_null(key):
                raise UserError(f"{key}=null: needs a value, such as {default}")
            kind = mismatch(default, value)
            if kind:
                raise UserError(f"{key}={value}: must be {kind}, such as {default}")


def require_deletable(key: str, base: DictConfig) -> None:
    """Refuse to delete a key that the program reads.

    Raises:
        UserError: anything but a logger, a callback, or an argument of a class.
    """
    parent, _, name = key.rpartition(".")
    if not parent and name not in base:
        return  # Hydra says that there is none
    node = OmegaConf.select(base, parent) if parent else base
    own = parent in ("logger", "callbacks") or parent.startswith("hydra")
    if own or not isinstance(node, DictConfig) or ("_target_" in node and name != "_target_"):
        return
    raise UserError(f"~{key}: a run reads this key; set it to another value instead of removing it")


def may_be_null(key: str) -> bool:
    """Whether null has a meaning where a number, a switch or a list stands."""
    return key in NULLABLE or key.startswith("trainer.")


def require_names(override: Any) -> None:
    """Refuse what names no choice of a group.

    Raises:
        UserError: such as ``model=null``, or a value without a key.
    """
    group = override.key_or_group
    if not group:
        raise UserError(f"{override.input_line}: not an override; key=value is")
    if override.is_delete():
        require_optional(group)
        return
    for value in single_values(override):
        if not isinstance(value, str | list | dict):
            raise UserError(
                f"{override.input_line}: '{group}' takes the name of a choice; leave it out for "
                f"none, or set a key of it, {group}.KEY=..."
            )


def require_optional(group: str) -> None:
    """Refuse to remove a group that a run needs.

    Raises:
        UserError: naming its choices.
    """
    names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem != "base")
    if group in OPTIONAL or not names:
        return
    raise UserError(f"~{group}: a run needs one; choose another, {group}={'|'.join(names)}")


def single_values(override: Any) -> list[Any]:
    """What the override sets, in a sweep one after another; none for a search's interval.

    Raises:
        UserError: a sweep over nothing.
    """
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        return []
    try:
        values = list(override.sweep_iterator())
    except ValueError as error:  # such as a range with a step of 0
        raise UserError(f"{override.input_line}: {error}") from error
    if not values:
        raise UserError(f"{override.input_line}: names no value")
    return values


def one_choice(override: Any) -> str:
    """The override of a group with the first of its choices."""
    if not override.is_sweep_override():
        return str(override.input_line)
    return f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"


def mismatch(default: Any, value: Any) -> str | None:
    """What the value should be, if it is not that; a default of None takes anything."""
    if value is None or (isinstance(value, str) and "${" in value):
        return None
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and math.isnan(value):
        return "a number"
    if isinstance(default, int):
        return None if number and isinstance(value, int) else "a whole number"
    if isinstance(default, float):
        return None if number else "a number"
    if isinstance(default, ListConfig):
        return None if isinstance(value, list) else "a list"
    if isinstance(default, DictConfig):
        return None if isinstance(value, dict) else "keys and values {a: 1}, or null"
    if isinstance(default, str):
        return "one value" if isinstance(value, list | dict) else None
    return None
