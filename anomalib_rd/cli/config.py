"""Config files: their folder, resolvers and composition, and Hydra's override grammar."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

import anomalib_rd

PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
RESERVED = {"null", "true", "false", "nan", "inf"}


def conf_dir() -> Path:
    """The folder of configs: in the package if installed, else at the top of the repository."""
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
    """Eight hex digits that identify the config of a run."""
    from anomalib_rd.results.identity import config_digest

    return config_digest(_root_)


def compose_config(overrides: Sequence[str], folder: str | None = None) -> DictConfig:
    """The composed config, including Hydra's own part.

    Args:
        overrides: without sweeps.
        folder: the user's folder of configs.
    """
    from hydra import compose, initialize_config_dir

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
    """Whether a key is a config group of this project or of the user's folder of configs."""
    return any(Path(parent, key).is_dir() for parent in (conf_dir(), folder) if parent)


def parse_overrides(arguments: Sequence[str]) -> dict[int, Any]:
    """Hydra's parsed overrides by their index in the arguments, without flags."""
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


def literal(text: str) -> str:
    """Text in Hydra's grammar: parsed and resolved, it is the same text again."""
    if PLAIN.fullmatch(text) and text.lower() not in RESERVED:
        return text
    # OmegaConf resolves "${" in quotes too. A backslash prevents it; backslashes before it double.
    return single_quoted(re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text))


def single_quoted(text: str) -> str:
    """Text in single quotes, escaped for Hydra's grammar."""
    return QuotedString(text, Quote.single).with_quotes()
