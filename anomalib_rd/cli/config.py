"""The configs: where they are, their resolvers, how they are composed, the points of studies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import anomalib_rd
from anomalib_rd.errors import UserError

POINT = "point"
"""The config group of a study's named points."""


def conf_dir() -> Path:
    """The folder of configs: in the package when installed, else at the top of the checkout."""
    package = Path(anomalib_rd.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def register_resolvers() -> None:
    """Register ``${stem:...}``, ``${set_name:...}`` and ``${config_hash:}``; repeatable."""
    from anomalib_rd.results.record import category_set_name

    OmegaConf.register_new_resolver("stem", stem, replace=True)
    OmegaConf.register_new_resolver("set_name", category_set_name, replace=True)
    OmegaConf.register_new_resolver("config_hash", config_hash, replace=True)


def stem(name: str) -> str:
    """``resnet18.tv_in1k`` -> ``resnet18``."""
    return str(name).split(".")[0]


def config_hash(*, _root_: DictConfig) -> str:
    """Eight hex digits that differ where the configs of two runs do."""
    from anomalib_rd.results.identity import config_digest

    return config_digest(_root_)


def compose_config(overrides: Sequence[str], folder: str | None = None) -> DictConfig:
    """The composed config, Hydra's own part included.

    Args:
        overrides: without sweeps.
        folder: the user's folder of configs.
    """
    from hydra import compose, initialize_config_dir

    from anomalib_rd.cli.overrides import literal

    if folder is not None:
        url = literal(f"file://{Path(folder).resolve()}")
        overrides = [*overrides, f"hydra.searchpath=[{url}]"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=True)


def config_folder(arguments: Sequence[str]) -> str | None:
    """The user's folder of configs, the value of ``-cd`` or ``--config-dir``."""
    for index, argument in enumerate(arguments):
        if argument in ("-cd", "--config-dir") and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith("--config-dir="):
            return argument.partition("=")[2]
    return None


def is_group(key: str, folder: str | None = None) -> bool:
    """Whether a key is a config group, of this project or in the user's folder of configs."""
    return any((Path(place) / key).is_dir() for place in (conf_dir(), folder) if place)


def parse_overrides(arguments: Sequence[str]) -> dict[int, Any]:
    """Hydra's parsed overrides by their position among the arguments; flags have none."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.override_parser.overrides_parser import OverridesParser

    texts = {
        index: argument
        for index, argument in enumerate(arguments)
        if argument.startswith("~") or ("=" in argument and not argument.startswith("-"))
    }
    loader = None
    if any("glob(" in text for text in texts.values()):  # needs the names of a group's choices
        path = create_config_search_path(str(conf_dir()))
        if folder := config_folder(arguments):
            path.append("command-line", f"file://{Path(folder).resolve()}")
        loader = ConfigLoaderImpl(path)
    overrides = OverridesParser.create(loader).parse_overrides(list(texts.values()))
    return dict(zip(texts, overrides, strict=True))


def register_points(arguments: Sequence[str]) -> None:
    """Make the points of the chosen study a config group, so that Hydra composes and sweeps them.

    ``hydra.sweeper.params.point`` of a study maps the name of each point to its overrides.
    Launchers pass Hydra's config store on to the processes of the jobs.

    Raises:
        UserError: a point is chosen without a study that has points.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.repo.pop(POINT, None)
    studies = [argument.partition("=")[2] for argument in arguments if argument[:6] == "study="]
    for place in (conf_dir(), config_folder(arguments)):
        path = Path(place or "", "study", f"{studies[-1] if studies else ''}.yaml")
        if place and path.is_file():
            points = OmegaConf.select(OmegaConf.load(path), f"hydra.sweeper.params.{POINT}") or {}
            for name, overrides in points.items():
                store.store(str(name), point_config(overrides), POINT, "_global_")
    for argument in arguments:
        if argument.startswith(f"{POINT}=") and POINT not in store.repo:
            raise UserError(f"{argument}: needs a study with points, study=NAME")


def point_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The overrides of a point as the content of a config file: defaults list and keys."""
    from anomalib_rd.cli.overrides import quote_overrides

    defaults: list[Any] = []
    keys = OmegaConf.create()
    quoted = quote_overrides(list(overrides), multirun=False)
    for override in parse_overrides(quoted).values():
        if is_group(override.key_or_group):
            defaults.append({f"override /{override.key_or_group}": override.value()})
        else:
            OmegaConf.update(keys, override.key_or_group, override.value())
    config: Any = OmegaConf.to_container(keys)
    return {"defaults": defaults, **config}
