"""``-m data.category=all``: names for groups, before Hydra makes the jobs."""

import re
from itertools import pairwise
from typing import Any

from anomalib_rd.errors import UserError

KEY = "data.category"
GROUPS = {"all", "textures", "objects"}


def expand_categories(words: list[str]) -> list[str]:
    """With ``-m``, put the names of the categories in place of groups and lists of them.

    Looks at what the command line says, else at what an ablation sweeps, else at the data
    set's own default. Without ``-m`` the words stay as they are.

    Raises:
        UserError: several data sets at once, unknown categories.
    """
    if not {"-m", "--multirun"} & set(words):
        return words
    words = list(words)
    folder = config_folder(words)
    overrides = parsed(words)
    if any(o.key_or_group == "data" and o.is_sweep_override() for o in overrides.values()):
        raise UserError("data=...: one multirun takes one data set; start one for each")
    fixed = [
        words[i]
        for i, o in overrides.items()
        if not o.is_sweep_override() and o.key_or_group != KEY
    ]
    cfg = composed(fixed, folder)
    given = [i for i, o in overrides.items() if o.key_or_group == KEY]
    if given:
        wanted: Any = values(overrides[given[-1]])
    else:
        wanted = (cfg.hydra.sweeper.get("params") or {}).get(KEY, cfg.data.category)
        wanted = wanted.split(",") if isinstance(wanted, str) else wanted
        if not GROUPS & set(wanted):
            return words

    from hydra.utils import instantiate

    from anomalib_rd.data.source import select_categories

    names = select_categories(instantiate(cfg.data.source), wanted)
    spelt = f"{KEY}={','.join(quoted(name) for name in names)}"
    if given:
        words[given[-1]] = spelt
        return words
    return [*words, spelt]


def parsed(words: list[str]) -> dict[int, Any]:
    """The overrides among the words (flags and their values are none), by their place."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    places = [i for i, word in enumerate(words) if "=" in word and not word.startswith("-")]
    overrides = OverridesParser.create().parse_overrides([words[i] for i in places])
    return dict(zip(places, overrides, strict=True))


def config_folder(words: list[str]) -> str | None:
    """What ``-cd`` or ``--config-dir`` says."""
    for flag, value in pairwise(words):
        if flag in ("-cd", "--config-dir"):
            return value
    return next((w.split("=", 1)[1] for w in words if w.startswith("--config-dir=")), None)


def composed(overrides: list[str], folder: str | None) -> Any:
    """The config of the words that every job shares, Hydra's own part included."""
    from pathlib import Path

    from hydra import compose, initialize_config_dir

    from anomalib_rd.cli.config import conf_dir

    if folder is not None:
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(folder).resolve()}]"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=overrides, return_hydra_config=True)


def values(override: Any) -> list[str]:
    """All that an override of the category names."""
    if override.is_sweep_override():
        found = [str(value).strip("'\"") for value in override.sweep_string_iterator()]
    else:
        value = override.value()
        found = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    return [name for value in found for name in value.strip("[]").split(",")]


def quoted(name: str) -> str:
    """The name as Hydra's grammar takes it."""
    return name if re.fullmatch(r"[\w.\-]+", name) else "'" + name.replace("'", r"\'") + "'"
