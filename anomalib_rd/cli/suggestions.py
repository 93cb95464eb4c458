"""Which key or choice a user may have meant."""

import difflib
from collections.abc import Sequence

from anomalib_rd.cli.trainer_arguments import TRAINER_ARGUMENTS

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
    "ema": "averaging",
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
