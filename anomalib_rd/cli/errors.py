"""User errors as one-line messages."""

import difflib
import errno
import re
import shlex
from collections.abc import Sequence
from typing import Any

from anomalib_rd.cli.trainer_arguments import TRAINER_ARGUMENTS
from anomalib_rd.data.workers import explain_shared_memory_error
from anomalib_rd.errors import UserError

# What other frameworks call a key: Lightning, lightning-hydra-template, anomalib, timm, argparse.
ALIASES = {
    "batch_size": "data.train_batch_size",
    "train_batch": "data.train_batch_size",
    "bs": "data.train_batch_size",
    "eval_batch_size": "data.test_batch_size",
    "val_batch_size": "data.test_batch_size",
    "lr": "optimizer.lr",
    "learning_rate": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "wd": "optimizer.weight_decay",
    "epochs": "trainer.max_epochs",
    "epoch": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "workers": "data.num_workers",
    "num_workers": "data.num_workers",
    "n_workers": "data.num_workers",
    "gpus": "trainer.devices",
    "gpu": "trainer.devices",
    "num_gpus": "trainer.devices",
    "devices": "trainer.devices",
    "device": "trainer.accelerator",
    "accelerator": "trainer.accelerator",
    "precision": "speed.precision",
    "amp": "speed.precision",
    "compile": "speed.compile",
    "category": "data.category",
    "class": "data.category",
    "class_name": "data.category",
    "classes": "data.category",
    "categories": "data.category",
    "object": "data.category",
    "dataset": "data",
    "datamodule": "data",
    "data_path": "data.root",
    "data_dir": "data.root",
    "data_root": "data.root",
    "dataset_path": "data.root",
    "dataset_dir": "data.root",
    "root": "data.root",
    "path": "data.root",
    "img_size": "data.image_size",
    "image_size": "data.image_size",
    "input_size": "data.image_size",
    "imsize": "data.image_size",
    "resize": "data.image_size",
    "size": "data.image_size",
    "backbone": "model/teacher",
    "encoder": "model/teacher",
    "teacher": "model/teacher",
    "pretrained": "model.teacher.weights",
    "weights": "model.teacher.weights",
    "attention": "model.fusion.attention",
    "mask_ratio": "model.masking.ratio",
    "ratio": "model.masking.ratio",
    "mask": "model/masking",
    "masking": "model/masking",
    "fpr": "threshold.false_positive_rate",
    "output_dir": "hydra.run.dir",
    "out_dir": "hydra.run.dir",
    "out": "hydra.run.dir",
    "save_dir": "hydra.run.dir",
    "run_name": "name",
    "random_seed": "seed",
    "manual_seed": "seed",
    "project": "logger.wandb.project",
    "wandb": "logger",
    "tags": "logger.wandb.tags",
    "early_stopping": "callbacks",
    "ema": "model.ema_decay",
}


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """The likeliest of the known keys in words, or nothing."""
    meant = likeliest(key, known)
    return f", did you mean '{meant}'?" if meant else ""


def likeliest(key: str, known: Sequence[str]) -> str | None:
    """The known key that a mistyped or foreign one may have meant; None if none is like it.

    A near misspelling of the whole key comes first, then another framework's name for it, then
    the same last part in another place, and at last what looks most alike.
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
        return max(same, key=lambda other: (likeness(key, other), -len(other)))
    return next(iter(difflib.get_close_matches(key, known, n=1)), None)


def likeness(a: str, b: str) -> float:
    """How alike two texts are, 0 to 1."""
    return difflib.SequenceMatcher(None, a, b).ratio()


def trainer_keys() -> list[str]:
    """The arguments of Lightning's Trainer, as one types them."""
    return [f"trainer.{name}" for name in sorted(TRAINER_ARGUMENTS)]


FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
NO_PLACE = (errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EISDIR)


def of_disk(error: OSError) -> str | None:
    """One line of an error that the user can mend; None for any other."""
    if error.errno in FULL:
        return f"no space left on the device for {error.filename or 'a file'}; free some"
    if error.errno in REFUSED and error.filename:
        return f"{error.filename}: {error.strerror}; get the right to it, or say another place"
    if error.errno in NO_PLACE and error.filename:
        return f"{error.filename}: {error.strerror}; say another place"
    return None


def explain(error: BaseException) -> str | None:
    """One line for a mistake that the user can mend; None for a defect of the program."""
    for link in chain(error):
        if isinstance(link, UserError):
            return original(str(link))
        if isinstance(link, OSError) and (line := of_disk(link)):
            return line
        if line := explain_shared_memory_error(link):
            return line
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return of_config(error)
    return None


def error_line(error: BaseException) -> str:
    """`explain`, or for a defect of the program its type and message."""
    return explain(error) or f"{type(error).__name__}: {error}"


def of_config(error: BaseException) -> str:
    """What Hydra or OmegaConf found wrong, in our words where theirs are many lines."""
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
        return unreadable(str(error.override))
    if isinstance(error, MissingConfigException) and error.options:
        return no_choice(error.missing_cfg_file or "", error.options)
    if unknown := re.match(r"Could not override '([^'@]+)", text):
        return f"no key '{unknown[1]}' in the config{nearest_key(unknown[1])}"
    if several := re.match(r"Ambiguous value for argument '(.+)'$", text, re.MULTILINE):
        return f"{several[1]}: several values; add -m for a run of each, or write [a,b] for a list"
    if isinstance(error, InstantiationException):
        return one_line(f"{place_of(text)}{one_line(str(cause)) if cause else first_line(text)}")
    if isinstance(error, (MissingMandatoryValue, InterpolationToMissingValueError)):
        key = asked_for(str(error.full_key))
        return f"{key} has no value; say {key}=..."
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)) and error.full_key:
        return f"the config lacks {error.full_key}, which a run reads; set it, {error.full_key}=..."
    detail = f"; {cause}" if isinstance(cause, OmegaConfBaseException) else ""
    return one_line(text.partition("\nConfig search path")[0] + detail)


def unreadable(word: str) -> str:
    """A word that Hydra's grammar refuses, and how its value is quoted."""
    key, equals, value = word.partition("=")
    if equals:
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        from anomalib_rd.cli.words import quoted

        in_quotes = f"{key}={quoted(value)}"
        try:
            OverridesParser.create().parse_override(in_quotes)
        except HydraException:
            pass
        else:
            return (
                f"{word}: not an override that Hydra can read; a text with these characters is to "
                f"be quoted: {shlex.quote(in_quotes)}"
            )
    return f"{word}: not an override that Hydra can read; key=value is"


def asked_for(key: str) -> str:
    """The key that the user sets: a data set's folder is passed on to its source."""
    return "data.root" if key == "data.source.root" else key


def no_choice(asked: str, options: Sequence[str]) -> str:
    """A choice that a group of configs lacks, and those that it has."""
    group, _, name = asked.rpartition("/")
    names = [option for option in options if option != "base"]
    nearest = difflib.get_close_matches(name, names, n=1)
    meant = f", did you mean '{nearest[0]}'?" if nearest else ""
    return f"{group}={name}: no such choice{meant}; there are {', '.join(names)}"


def place_of(text: str) -> str:
    """Which part of the config could not be made, as Hydra's message says it."""
    key = re.search(r"^full_key: (.+)$", text, re.MULTILINE)
    target = re.search(r"target '([^']+)'", text)
    return "".join(f"{found[1]}: " for found in (key, target) if found)


def first_line(text: str) -> str:
    """Of a message of Hydra's, without its advice."""
    return text.splitlines()[0].partition(", set env var")[0]


def nearest_key(key: str) -> str:
    """What may have been meant, and how a new key is added."""
    from omegaconf import OmegaConf

    from anomalib_rd.cli.categories import composed

    with_hydra = OmegaConf.to_container(composed([], None), resolve=False)
    assert isinstance(with_hydra, dict)
    meant = did_you_mean(key, [*dotted(with_hydra), *trainer_keys()])
    part = "hydra" if key.startswith("hydra.") else "job"
    return f"{meant}; `anomalib-rd train --cfg {part}` shows all, +{key}=... adds a new one"


def dotted(config: dict[Any, Any], prefix: str = "") -> list[str]:
    """All keys of a nested config, as one types them."""
    keys = []
    for name, value in config.items():
        keys.append(f"{prefix}{name}")
        if isinstance(value, dict):
            keys += dotted(value, f"{prefix}{name}.")
    return keys


def chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    links = [error]
    while (cause := links[-1].__cause__) is not None and cause not in links:
        links.append(cause)
    return links


def original(message: str) -> str:
    """The message as raised, where a data loader's worker wrapped it into its traceback."""
    if message.startswith("Caught UserError in"):
        message = re.split(r"errors\.UserError: ", message)[-1]
    return one_line(message)


def one_line(text: str) -> str:
    """The text without line breaks and runs of blanks."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "; ".join(line.rstrip(";") for line in lines if line)
