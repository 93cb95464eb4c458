"""User errors as one-line messages."""

import difflib
import errno
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from anomalib_rd.cli.overrides import TRAINER_ARGUMENTS
from anomalib_rd.data.workers import explain_shared_memory_error
from anomalib_rd.errors import UserError

# Keys by their names in Lightning, lightning-hydra-template, anomalib, timm and argparse scripts.
FOREIGN_NAMES = {
    "data.train_batch_size": "batch_size train_batch bs",
    "data.test_batch_size": "eval_batch_size val_batch_size",
    "optimizer.lr": "lr learning_rate",
    "optimizer.weight_decay": "weight_decay wd",
    "trainer.max_epochs": "epochs epoch max_epochs num_epochs n_epochs",
    "data.num_workers": "workers num_workers n_workers",
    "trainer.devices": "gpus gpu num_gpus devices",
    "trainer.accelerator": "device accelerator",
    "speed.precision": "precision amp",
    "speed.compile": "compile",
    "data.category": "category class class_name classes categories object",
    "data": "dataset datamodule",
    "data.root": "data_path data_dir data_root dataset_path dataset_dir root path",
    "data.image_size": "img_size image_size input_size imsize resize size",
    "model/teacher": "backbone encoder teacher",
    "model.teacher.weights": "pretrained weights",
    "model.fusion.attention": "attention",
    "model.masking.ratio": "mask_ratio ratio",
    "model/masking": "mask masking",
    "threshold.false_positive_rate": "fpr",
    "hydra.run.dir": "output_dir out_dir out save_dir",
    "name": "run_name",
    "seed": "random_seed manual_seed",
    "logger.wandb.project": "project",
    "logger": "wandb",
    "logger.wandb.tags": "tags",
    "callbacks": "early_stopping",
    "model.ema_decay": "ema",
}
ALIASES = {name: key for key, names in FOREIGN_NAMES.items() for name in names.split()}

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)
BAD_PATH = (
    *(errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)


def explain(error: BaseException) -> str | None:
    """A user error as one line; None if the error is a bug."""
    for cause in _causes(error):
        if isinstance(cause, UserError):
            # A data loader's worker wraps it into its traceback.
            return _join_lines(
                re.sub(r"(?s)^Caught UserError in.*errors\.UserError: ", "", str(cause))
            )
        line = explain_os_error(cause) if isinstance(cause, OSError) else None
        if line := line or explain_shared_memory_error(cause):
            return line
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _explain_config_error(error)
    return None


def error_line(error: BaseException) -> str:
    """`explain`, or type and message of a bug."""
    return explain(error) or f"{type(error).__name__}: {error}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = [error]
    yield error
    while (cause := seen[-1].__cause__) is not None and cause not in seen:
        seen.append(cause)
        yield cause


def _join_lines(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "; ".join(line.rstrip(";") for line in lines if line)


def explain_os_error(error: OSError) -> str | None:
    """The message of a full disk or an invalid path; None for other errors."""
    path = error.filename
    if error.errno in DISK_FULL:
        return f"no space left on the device for {path or 'a file'}; free some"
    if path and error.errno in NO_PERMISSION:
        return f"{path}: {error.strerror}; get permission, or choose another path"
    if path and error.errno in BAD_PATH:
        return f"{path}: {error.strerror}; choose another path"
    return None


def _explain_config_error(error: BaseException) -> str:
    """The message of an error of Hydra or OmegaConf as one line."""
    from hydra.errors import InstantiationException, MissingConfigException, OverrideParseException
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        InterpolationToMissingValueError,
        MissingMandatoryValue,
        OmegaConfBaseException,
    )

    text, cause = str(error), error.__cause__
    if isinstance(error, OverrideParseException):
        return _explain_override(str(error.override))
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        names = [option for option in error.options if option != "base"]
        return f"{group}={name}: unknown{_suggest(name, names)}; choose from {', '.join(names)}"
    if unknown := re.match(r"Could not override '([^'@]+)", text):
        return _explain_unknown_key(unknown[1])
    if several := re.match(r"Ambiguous value for argument '(.+)'$", text, re.MULTILINE):
        return f"{several[1]}: several values; add -m for a run of each, or write [a,b] for a list"
    if isinstance(error, InstantiationException):
        key = re.search(r"^full_key: (.+)$", text, re.MULTILINE)
        target = re.search(r"target '([^']+)'", text)
        parts = [match[1] for match in (key, target) if match]
        first_line = text.splitlines()[0].partition(", set env var")[0]
        return _join_lines(": ".join([*parts, str(cause) if cause else first_line]))
    if isinstance(error, (MissingMandatoryValue, InterpolationToMissingValueError)):
        # A data set's folder is passed on to its source.
        name = str(error.full_key).replace("data.source.root", "data.root")
        return f"{name} has no value; set {name}=..."
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)) and error.full_key:
        return f"the config has no {error.full_key}, which is needed; set {error.full_key}=..."
    detail = f"; {cause}" if isinstance(cause, OmegaConfBaseException) else ""
    return _join_lines(text.partition("\nConfig search path")[0] + detail)


def _explain_override(override: str) -> str:
    """The message for an override that Hydra's grammar refuses, quoted if that makes it valid."""
    key, equals, value = override.partition("=")
    if equals:
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        from anomalib_rd.cli.config import single_quoted

        in_quotes = f"{key}={single_quoted(value)}"
        try:
            OverridesParser.create().parse_override(in_quotes)
        except HydraException:
            pass
        else:
            return f"{override}: not a valid override; quote this text: {shlex.quote(in_quotes)}"
    return f"{override}: not a valid override; write key=value"


def _explain_unknown_key(key: str) -> str:
    """The message for an unknown key: a suggestion, and how to add a new key."""
    from omegaconf import OmegaConf

    from anomalib_rd.cli.config import compose_config

    config = OmegaConf.to_container(compose_config([]), resolve=False)
    assert isinstance(config, dict)
    hint = did_you_mean(key, [*dotted(config), *trainer_keys()])
    part = "hydra" if key.startswith("hydra.") else "job"
    return (
        f"no key '{key}' in the config{hint}; `anomalib-rd train --cfg {part}` shows all, "
        f"+{key}=... adds a new one"
    )


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """``, did you mean 'KEY'?`` with the most likely of the known keys, or empty."""
    meant = likeliest(key, known)
    return f", did you mean '{meant}'?" if meant else ""


def _suggest(name: str, names: Sequence[str]) -> str:
    return "".join(f", did you mean '{n}'?" for n in difflib.get_close_matches(name, names, n=1))


def likeliest(key: str, known: Sequence[str]) -> str | None:
    """The known key that a mistyped or foreign key may mean; None if none is similar.

    In this order: a near misspelling, another framework's name, the same last part in another
    group, the most similar key.
    """
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.9)
    if near:
        return near[0]
    parts = key.replace("/", ".").split(".")
    alias = ALIASES.get(parts[-1].lower().replace("-", "_"))
    if alias and alias != key and (alias in known or "/" in alias):
        return alias
    same = [other for other in known if other.rpartition(".")[2] == parts[-1]]
    if same:
        return max(same, key=lambda k: (difflib.SequenceMatcher(None, key, k).ratio(), -len(k)))
    return next(iter(difflib.get_close_matches(key, known, n=1)), None)


def trainer_keys() -> list[str]:
    """The arguments of Lightning's Trainer as override keys."""
    return [f"trainer.{name}" for name in sorted(TRAINER_ARGUMENTS)]


def dotted(config: dict[Any, Any], prefix: str = "") -> list[str]:
    """All keys of a nested config as override keys."""
    keys = []
    for name, value in config.items():
        keys.append(f"{prefix}{name}")
        if isinstance(value, dict):
            keys += dotted(value, f"{prefix}{name}.")
    return keys
