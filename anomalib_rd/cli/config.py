"""Where the configs are, and the resolvers that they use."""

import hashlib
import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

import anomalib_rd

# What doesn't change a run's outcome doesn't make it another run.
NOT_HASHED = {"hydra", "sweep", "name", "run_dir", "logger", "callbacks", "heatmaps"}
SAME_BITS = {"image_cache", "feature_cache"}


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
    config = OmegaConf.to_container(_root_, resolve=False)
    assert isinstance(config, dict)
    kept = {str(key): value for key, value in config.items() if key not in NOT_HASHED}
    kept["speed"] = {key: value for key, value in kept["speed"].items() if key not in SAME_BITS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
