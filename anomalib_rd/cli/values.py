"""Values of the wrong type are refused before anything starts."""

from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf

from anomalib_rd.cli.categories import KEY, composed, config_folder, parsed
from anomalib_rd.cli.config import conf_dir
from anomalib_rd.errors import UserError


def check_values(words: list[str]) -> None:
    """Hold the overrides against the types of the values that they replace.

    Raises:
        UserError: such as text for a number.
    """
    overrides = list(parsed(words).values())
    folder = config_folder(words)
    places = [conf_dir(), *([Path(folder)] if folder else [])]
    groups = [o for o in overrides if any((place / o.key_or_group).is_dir() for place in places)]
    base = composed([one_choice(o) for o in groups if o.value() is not None], folder)
    for override in overrides:
        key = override.key_or_group
        if override in groups or key == KEY or key.startswith("hydra.") or override.is_delete():
            continue
        default = OmegaConf.select(base, key, throw_on_resolution_failure=False)
        for value in single_values(override):
            kind = mismatch(default, value)
            if kind:
                raise UserError(f"{key}={value}: must be {kind}, such as {default}")


def single_values(override: Any) -> list[Any]:
    """What the override sets, in a sweep one after another; none for a search's interval."""
    if not override.is_sweep_override():
        return [override.value()]
    return list(override.sweep_iterator()) if override.is_discrete_sweep() else []


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
    if isinstance(default, int):
        return None if number and value == int(value) else "a whole number"
    if isinstance(default, float):
        return None if number else "a number"
    if isinstance(default, ListConfig):
        return None if isinstance(value, list) else "a list"
    return None
