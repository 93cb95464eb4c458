"""``-m data.category=all``: names for groups, before Hydra makes the jobs or the one job."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from anomalib_rd.cli.words import CATEGORY, as_typed, is_multirun, literal, require_text
from anomalib_rd.errors import UserError

KEY, UNIFIED = CATEGORY, "data.unified"
GROUPS = {"all", "textures", "objects"}


def expand_categories(words: list[str]) -> list[str]:
    """Put the names of the categories in place of groups and lists of them.

    With ``-m`` they make the jobs, with ``data.unified=true`` they are one model's set: a list.
    Looks at what the command line says, else at what an ablation sweeps, else at the data
    set's own default. Words that ask for neither stay as they are, but for commas: without
    ``-m`` Hydra takes no sweep, and the run can say what is wrong with a list.

    Raises:
        UserError: several data sets at once, both kinds at once, unknown categories, a set of one.
    """
    many = is_multirun(words)
    words = as_typed(words, many)
    folder, overrides = config_folder(words), parsed(words)
    require_one_kind(overrides)
    given = [i for i, o in overrides.items() if o.key_or_group == KEY]
    asked = any(isinstance(overrides[i].value(), list) for i in given)
    if not (many or asked or any(o.key_or_group == UNIFIED for o in overrides.values())):
        return words
    fixed = [
        words[i]
        for i, o in overrides.items()
        if not o.is_sweep_override() and o.key_or_group != KEY
    ]
    cfg = composed(fixed, folder)
    if given:
        wanted: Any = values(overrides[given[-1]])
    else:
        swept = (cfg.hydra.sweeper.get("params") or {}).get(KEY) if many else None
        if swept is not None:
            (override,) = parsed(as_typed([f"{KEY}={swept}"], many)).values()
            wanted = values(override)
        else:
            from omegaconf import ListConfig

            wanted = cfg.data.category
            wanted = list(wanted) if isinstance(wanted, list | ListConfig) else [wanted]
            for name in wanted:
                require_text(KEY, name)
    if not cfg.data.unified and not (many and (given or GROUPS & set(wanted))):
        return words

    from hydra.utils import instantiate

    from anomalib_rd.data.sources.source import select_categories, select_unified_categories

    choose = select_unified_categories if cfg.data.unified else select_categories
    names = listed(choose(instantiate(cfg.data.source), wanted))
    return put(words, given, f"[{names}]" if cfg.data.unified else names)


def require_one_kind(overrides: dict[int, Any]) -> None:
    """Refuse a multirun of several data sets, or of both kinds of jobs.

    Raises:
        UserError: such as ``data.unified=true,false``.
    """
    swept = {o.key_or_group for o in overrides.values() if o.is_sweep_override()}
    if "data" in swept:
        raise UserError("data=...: one multirun takes one data set; start one for each")
    if UNIFIED in swept:
        raise UserError(
            f"{UNIFIED}: one multirun trains on each category or on all, for their jobs differ; "
            "start both, with the same sweep=NAME to have them in one table"
        )


def put(words: list[str], given: list[int], categories: str) -> list[str]:
    """The words with the categories in their last place, or at the end."""
    place = given[-1:] or [len(words)]
    words[place[0] : place[0] + 1] = [f"{KEY}={categories}"]
    return words


def listed(names: Iterable[Any]) -> str:
    """The names with commas between them, in Hydra's grammar."""
    return ",".join(literal(str(name)) for name in names)


def parsed(words: list[str]) -> dict[int, Any]:
    """The overrides among the words (flags and their values are none), by their place."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    places = [
        i
        for i, word in enumerate(words)
        if word.startswith("~") or ("=" in word and not word.startswith("-"))
    ]
    # Only glob(...) needs to know the choices of a group.
    globs = any("glob(" in words[i] for i in places)
    loader = config_loader(config_folder(words)) if globs else None
    overrides = OverridesParser.create(loader).parse_overrides([words[i] for i in places])
    return dict(zip(places, overrides, strict=True))


def config_loader(folder: str | None) -> Any:
    """Hydra's loader of our configs and of those in the user's folder."""
    from pathlib import Path

    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path

    from anomalib_rd.cli.config import conf_dir

    path = create_config_search_path(str(conf_dir()))
    if folder is not None:
        path.append("command-line", f"file://{Path(folder).resolve()}")
    return ConfigLoaderImpl(path)


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
        place = literal(f"file://{Path(folder).resolve()}")
        overrides = [*overrides, f"hydra.searchpath=[{place}]"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=overrides, return_hydra_config=True)


def values(override: Any) -> list[str]:
    """All that an override of the category names."""
    each = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
    return [name for value in each for name in names_in(value)]


def names_in(value: Any) -> Iterator[str]:
    """The names in a value, or in a list of them."""
    if isinstance(value, list):
        for item in value:
            yield from names_in(item)
    else:
        # In a sweep Hydra keeps a text with its quotes.
        yield str(getattr(value, "text", value))
