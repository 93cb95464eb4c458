"""Named points of a study: ``hydra.sweeper.params.point`` maps each name to its overrides.

They become the config group ``point``, so that Hydra composes and sweeps them like any other group.
Hydra's launchers hand its config store on to the processes of the jobs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from anomalib_rd.cli.categories import config_folder, parsed
from anomalib_rd.cli.config import conf_dir
from anomalib_rd.cli.words import as_typed

GROUP = "point"


def register_points(words: list[str]) -> None:
    """Make the points of the study that the overrides name choices of the group ``point``."""
    store = ConfigStore.instance()
    store.repo.pop(GROUP, None)
    studies = [word.partition("=")[2] for word in words if word.startswith("study=")]
    user, name = config_folder(words), f"{studies[-1]}.yaml" if studies else ""
    for folder in [conf_dir(), *([Path(user)] if user else [])]:
        path = folder / "study" / name
        if not path.is_file():
            continue
        study = OmegaConf.load(path)
        points = OmegaConf.select(study, f"hydra.sweeper.params.{GROUP}") or {}
        for point, overrides in points.items():
            store.store(group=GROUP, name=str(point), node=config_of(overrides), package="_global_")
        return


def config_of(overrides: Sequence[str]) -> dict[str, Any]:
    """The overrides as a config file would have them: groups in its defaults list, then keys."""
    defaults: list[Any] = []
    keys = OmegaConf.create()
    for override in parsed(as_typed(list(overrides), many=False)).values():
        key, value = override.key_or_group, override.value()
        if (conf_dir() / key).is_dir():
            defaults.append({f"override /{key}": value})
        else:
            OmegaConf.update(keys, key, value)
    node: Any = OmegaConf.to_container(keys)
    return {"defaults": defaults, **node}
