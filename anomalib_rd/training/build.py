"""Build the objects of a run from its config: data, module, evaluator, callbacks, trainer."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from anomalib_rd.components import build
from anomalib_rd.data import AnomalyDataModule, ImageCache, Source
from anomalib_rd.data.fingerprint import hash_files
from anomalib_rd.data.sources.source import select_run_categories
from anomalib_rd.errors import UserError
from anomalib_rd.networks import Distiller
from anomalib_rd.networks.teacher import state_sha256
from anomalib_rd.results.files import one_line
from anomalib_rd.results.identity import config_digest
from anomalib_rd.results.provenance import mask_config
from anomalib_rd.results.sweeps import is_main_process
from anomalib_rd.scoring import Tiling
from anomalib_rd.tracking.keys import WANDB_LOGGER
from anomalib_rd.tracking.wandb_runs import get_run_id
from anomalib_rd.training.callbacks import Heartbeat, MovingAverage, ResumeState
from anomalib_rd.training.checkpoints import AtomicCheckpointIO, RunIdentity
from anomalib_rd.training.config_checks import ALL_IMAGES
from anomalib_rd.training.evaluation import TEST, TEST_CURVE, VAL, Evaluator
from anomalib_rd.training.feature_cache import FeatureCaching, check_feature_cache
from anomalib_rd.training.module import DistillationModule
from anomalib_rd.training.run_checks import MODEL_PARTS, custom_parts, masks_by_defect


def plain_config(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """The config in plain types and without credentials, by default resolved."""
    config = OmegaConf.to_container(cfg, resolve=resolve, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): mask_config(value, str(key)) for key, value in config.items()}


def make_data(cfg: DictConfig) -> AnomalyDataModule:
    """The images of the config's category, or of several with ``data.unified``."""
    source: Source = build(cfg.data.source, "data.source")
    tiling: Tiling | None = build(cfg.model.tiling, "model.tiling")
    return AnomalyDataModule(
        source=source,
        category=select_run_categories(source, cfg.data.category, cfg.data.unified),
        image_size=cfg.data.image_size,
        train_batch_size=cfg.data.train_batch_size,
        test_batch_size=cfg.data.test_batch_size,
        num_workers=cfg.data.num_workers,
        transform=instantiate(cfg.data.transform) if cfg.data.transform else None,
        seed=cfg.seed,
        cache=ImageCache() if cfg.speed.image_cache else None,
        val=cfg.validation.kind,
        val_share=cfg.validation.fraction,
        test_curve=cfg.test_during_training,
        mask_rule=cfg.data.mask_rule,
        tiles=tiling.boxes(cfg.data.image_size) if tiling and tiling.size else None,
    )


def make_module(cfg: DictConfig) -> DistillationModule:
    """The networks, scoring, loss and optimizer of the config."""
    parts = {part: build(cfg.model[part], f"model.{part}") for part in MODEL_PARTS}
    try:
        distiller = Distiller(**parts)
    except Exception as error:  # the user's own code may raise anything
        if isinstance(error, UserError) or not (names := custom_parts(cfg.model)):
            raise
        raise UserError(f"{', '.join(names)}: {one_line(error)}") from error
    if cfg.speed.channels_last:
        # Only the weights: images and features follow them.
        distiller.to(memory_format=torch.channels_last)
    return DistillationModule(
        distiller=distiller,
        scorer=build(cfg.model.scoring, "model.scoring"),
        tiling=build(cfg.model.tiling, "model.tiling"),
        loss=build(cfg.loss, "loss"),
        optimizer=instantiate(cfg.optimizer),
        scheduler=instantiate(cfg.scheduler) if cfg.scheduler else None,
        compile=cfg.speed.compile,
    )


def identify_run(
    cfg: DictConfig, module: DistillationModule, data: AnomalyDataModule
) -> RunIdentity:
    """Config, teacher and images of a run."""
    return RunIdentity(
        config=plain_config(cfg),
        config_digest=config_digest(cfg),
        teacher_sha256=state_sha256(module.distiller.teacher),
        data_files=hash_files(data.split, data.root),
    )


def make_evaluator(cfg: DictConfig, data: AnomalyDataModule) -> Evaluator:
    """The metrics of the config for these images."""
    pixels_on, test = cfg.metrics.pixels_on, data.split.test
    categories = {stage: [sample.category for sample in test] for stage in (TEST_CURVE, TEST)}
    if data.val_set is not None:
        categories[VAL] = [sample.category for sample in data.val_set.samples]
    known = [sample.label == 0 or sample.mask is not None for sample in test]
    return Evaluator(
        categories=categories,
        known_pixels={} if pixels_on == ALL_IMAGES else {TEST_CURVE: known, TEST: known},
        no_masks=why_no_masks(data, pixels_on),
        with_pro_rd4ad=cfg.metrics.pro_rd4ad,
        pixel_bins=cfg.metrics.max_bins,
    )


def why_no_masks(data: AnomalyDataModule, pixels_on: str) -> dict[str, str]:
    """Category -> why its pixel metrics are undefined, for the categories where they are."""
    reasons = {}
    for category, kinds in masks_by_defect(data).items():
        missing = {kind: (n - masks, n) for kind, (masks, n) in kinds.items() if masks < n}
        images = sum(n for _, n in kinds.values())
        without = sum(count for count, _ in missing.values())
        if without and (pixels_on == ALL_IMAGES or without == images):
            reason = f"{without} of {images} defect images have no ground-truth mask"
            if len(kinds) > 1 and without < images:
                parts = [f"{kind} {count} of {n}" for kind, (count, n) in missing.items()]
                reason += f" ({', '.join(parts)})"
            reasons[category] = reason
    return reasons


def make_callbacks(cfg: DictConfig) -> list[L.Callback]:
    """The callbacks of the config, then those of every run."""
    decay = cfg.model.ema_decay
    return [
        *(instantiate(spec) for spec in cfg.callbacks.values() if spec),
        *([] if decay is None else [MovingAverage(decay)]),
        Heartbeat(Path(cfg.run_dir)),
        ResumeState(cfg.seed),
        FeatureCaching(check_feature_cache(cfg.speed.feature_cache, cfg.data.transform)),
    ]


def make_loggers(specs: Mapping[Any, Any], run_dir: Path, resumed: bool) -> list[Logger]:
    """The loggers of ``specs``; a resumed run continues its W&B run, whose id is in run_dir."""
    loggers = []
    for spec in filter(None, specs.values()):
        options: dict[str, Any] = {}
        # An agent of a W&B sweep sets the id itself.
        own_id = spec.get("id") or os.environ.get("WANDB_RUN_ID")
        if spec["_target_"] == WANDB_LOGGER and not own_id and is_main_process():
            options["id"] = get_run_id(run_dir, resume=resumed)
        loggers.append(instantiate(spec, **options))
    return loggers


def make_trainer(
    cfg: DictConfig,
    callbacks: Sequence[L.Callback] = (),
    loggers: Sequence[Logger] = (),
    identity: RunIdentity | None = None,
) -> L.Trainer:
    """Lightning's trainer, which saves the run's identity in checkpoints.

    Raises:
        UserError: an argument that Lightning refuses.
    """
    silence_lightning()
    plugins = instantiate(cfg.trainer.get("plugins")) or []
    limit = cfg.trainer.get("limit_val_batches")
    if limit is None:
        limit = 1.0
    try:
        trainer: L.Trainer = instantiate(
            cfg.trainer,
            callbacks=list(callbacks),
            logger=list(loggers),
            plugins=[*plugins, AtomicCheckpointIO(identity)],
            limit_val_batches=limit if cfg.test_during_training or cfg.validation.kind else 0,
        )
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, (MisconfigurationException, ValueError, TypeError)):
            raise UserError(f"trainer: {' '.join(str(cause).split())}") from error
        raise
    return trainer


def silence_lightning() -> None:
    """Silence Lightning's messages and its warnings about intended behaviour."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for expected in (
        "Found .* module.s. in eval mode",  # the teacher
        "The .*dataloader.* does not have many workers",
        ".*isinstance.treespec, LeafSpec.",
        "The number of training batches",
        "Checkpoint directory .* exists and is not empty",
        "Be aware that when using .ckpt_path.",  # an evaluation needs no callbacks
        "You're using the WeightAveraging callback, but loading a checkpoint outside",  # likewise
        "The dirpath has changed from",  # a sweep's folder was moved, and the run resumed
    ):
        warnings.filterwarnings("ignore", expected)
