"""Where the configs are, and the resolvers that they use."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

import anomalib_rd


def conf_dir() -> Path:
    """The folder of configs: in the package when installed, else at the top of the checkout."""
    package = Path(anomalib_rd.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def register_resolvers() -> None:
    """Make ``${stem:...}`` and ``${config_hash:}`` known; may be called again."""
    OmegaConf.register_new_resolver("stem", stem, replace=True)
    OmegaConf.register_new_resolver("config_hash", config_hash, replace=True)


def stem(name: str) -> str:
    """``resnet18.tv_in1k`` -> ``resnet18``."""
    return str(name).split(".")[0]


def config_hash(*, _root_: DictConfig) -> str:
    """Eight hex digits that differ where the configs of two runs do."""
    from anomalib_rd.results.identity import config_digest

    return config_digest(_root_)
