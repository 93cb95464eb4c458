"""Where the configs are, and the resolvers that they use."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import anomalib_rd


def conf_dir() -> Path:
    """The folder of configs: in the package when installed, else at the top of the checkout."""
    package = Path(anomalib_rd.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def register_resolvers() -> None:
    """Make ``${stem:...}``, ``${set_name:...}`` and ``${config_hash:}`` known; again is fine."""
    OmegaConf.register_new_resolver("stem", stem, replace=True)
    OmegaConf.register_new_resolver("set_name", category_set_name, replace=True)
    OmegaConf.register_new_resolver("config_hash", config_hash, replace=True)


def stem(name: str) -> str:
    """``resnet18.tv_in1k`` -> ``resnet18``."""
    return str(name).split(".")[0]


def category_set_name(category: Any) -> str:
    """``bottle`` -> ``bottle``, ``[bottle, pill]`` -> ``bottle+pill``."""
    from anomalib_rd.results import record

    return record.category_set_name(category)


def config_hash(*, _root_: DictConfig) -> str:
    """Eight hex digits that differ where the configs of two runs do."""
    from anomalib_rd.results.identity import config_digest

    return config_digest(_root_)
