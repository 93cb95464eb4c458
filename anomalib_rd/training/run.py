"""One run, from config to record."""

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from anomalib_rd.components import OWN_PARTS, build
from anomalib_rd.data import AnomalyDataModule
from anomalib_rd.data.fingerprint import hash_files
from anomalib_rd.errors import UserError
from anomalib_rd.metrics.streaming import MIN_BINS
from anomalib_rd.results.files import one_line
from anomalib_rd.results.identity import config_digest
from anomalib_rd.results.provenance import mask_config
from anomalib_rd.results.sweeps import is_main_process
from anomalib_rd.tracking.wandb_logger import close_runs
from anomalib_rd.training.artifacts import (
    contained,
    leave_record,
    map_scale,
    require_counts,
    show_images,
)
from anomalib_rd.training.callbacks import Heartbeat, MovingAverage
from anomalib_rd.training.checkpoints import (
    CHECKPOINT,
    AtomicCheckpointIO,
    Restart,
    find_restart,
    keep_state,
)
from anomalib_rd.training.data import (
    categories_of,
    check_pixels_on,
    known_pixels,
    make_tiling,
    require_fitting_transform,
    require_readable,
    warn_if_changed,
    warn_of_data,
    why_no_masks,
)
from anomalib_rd.training.data import make_data as make_data
from anomalib_rd.training.feature_cache import usable_place
from anomalib_rd.training.finite import keeping_what_there_was
from anomalib_rd.training.fit_threshold import check_threshold, set_threshold, tell_possible_rate
from anomalib_rd.training.loggers import make_loggers
from anomalib_rd.training.model_selection import check_choices
from anomalib_rd.training.module import VAL, DistillationModule
from anomalib_rd.training.normals import fit_scorer
from anomalib_rd.training.partial import require_some_batches
from anomalib_rd.training.run_record import Outcome

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train one model on one category, or on a set of them, judge it and leave the record.

    Args:
        cfg: composed from conf/train.yaml.

    Returns:
        The value named by ``optimized_metric``, for a hyper-parameter search.

    Raises:
        UserError: whatever the user can mend.
    """
    started = time.perf_counter()
    run_dir = Path(cfg.run_dir)
    require_seed(cfg.seed)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    config = plain(cfg)
    require_counts(cfg.report.gallery, cfg.report.heatmaps)
    check_choices(cfg)
    check_threshold(cfg)
    data = make_data(cfg)
    module = make_module(cfg, data, config)
    module.data_files = hash_files(data.split, data.root)
    restart = (
        find_restart(run_dir, cfg, module) if cfg.model.train and not cfg.optimized_metric else None
    )
    if cfg.model.train:
        require_fitting_parts(cfg, module)
        require_optimizer(module)
        if is_main_process():
            require_readable(data)
            require_fitting_transform(data)
            warn_of_data(data)
    fast = bool(cfg.trainer.get("fast_dev_run"))  # Lightning logs nothing then
    loggers = [] if fast else make_loggers(cfg, run_dir, resumed=restart is not None)
    trainer = make_trainer(cfg, loggers)
    require_some_batches(trainer, data, fit=cfg.model.train)
    if is_main_process():
        tell_possible_rate(cfg, data)
    # All that a user can get wrong has been seen by now: only then a tracked run begins.
    with keeping_what_there_was(run_dir, run_dir / CHECKPOINT), close_runs(loggers):
        for logger in loggers:
            logger.log_hyperparams(config)
        outcome = Outcome(module, data, config, trainer, written=plain(cfg, resolve=False))
        if cfg.model.train:
            outcome.train_s = timed(lambda: fit(trainer, module, data, restart))
            outcome.resumed_from = restart.epoch if restart else None
        set_scorer(outcome, run_dir / CHECKPOINT)
        if not cfg.model.train and trainer.checkpoint_callback:
            module.trainer = trainer
            trainer.strategy.connect(module)
            trainer.save_checkpoint(run_dir / CHECKPOINT)
        logged = dict(trainer.callback_metrics)
        if data.val_set is not None and module.validation.get("epoch") != trainer.current_epoch:
            logged |= validate(trainer, module, data)
        with stoppable():
            outcome.test_s = timed(lambda: trainer.test(module, datamodule=data, verbose=False))
        if trainer.is_global_zero:
            with contained("no scale for heatmaps"):
                outcome.map_scale = map_scale(outcome)
            with contained("no threshold"):
                outcome.threshold_s = timed(lambda: set_threshold(outcome))
            with contained("no pictures"):
                show_images(outcome, loggers, run_dir, count=cfg.report.heatmaps)
            with contained("the images are not compared with those at the start"):
                warn_if_changed(module.data_files, data)
            outcome.total_s = time.perf_counter() - started
            leave_record(outcome, run_dir)
    if cfg.optimized_metric is None:
        return None
    logged |= trainer.callback_metrics
    if cfg.optimized_metric not in logged:
        raise UserError(
            f"optimized_metric={cfg.optimized_metric}: not logged; there are {', '.join(logged)}"
        )
    return float(logged[cfg.optimized_metric])


def require_seed(seed: object) -> None:
    """Refuse what is no seed.

    Raises:
        UserError: no whole number, or one that numpy can't take.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: give a whole number from 0 to {2**32 - 1}")


def require_optimizer(module: DistillationModule) -> None:
    """Make optimizer and scheduler once, for what they find wrong with the config.

    Raises:
        UserError: what they say.
    """
    try:
        module.configure_optimizers()
    except (ValueError, TypeError) as error:
        raise UserError(f"optimizer, scheduler: {one_line(error)}") from error


def fit(
    trainer: L.Trainer, module: DistillationModule, data: AnomalyDataModule, restart: Restart | None
) -> None:
    """Train, from where an earlier process left it."""
    if restart is not None:
        if trainer.is_global_zero:
            log.info("resumed after epoch %s of %s", restart.epoch, trainer.max_epochs)
        if trainer.max_epochs is not None and restart.epoch >= trainer.max_epochs:
            module.feature_cache = "off"  # nothing is left to train
    with stoppable():
        trainer.fit(module, datamodule=data, ckpt_path=restart.path if restart else None)


def set_scorer(outcome: Outcome, checkpoint: Path) -> None:
    """Show the normal images to a scorer that standardises, and keep what it learnt."""
    scorer, trainer = outcome.module.scorer, outcome.trainer
    with stoppable():
        learnt = fit_scorer(outcome.module, outcome.data, trainer)
    if learnt and trainer.is_global_zero and checkpoint.is_file():
        keep_state(checkpoint, scorer.state_dict(prefix="scorer."))


def validate(
    trainer: L.Trainer, module: DistillationModule, data: AnomalyDataModule
) -> dict[str, Any]:
    """Judge the held-out images by the network as it is now; gives what was logged."""
    loaders = {VAL: data.val_dataloader()[VAL]}
    with stoppable():
        trainer.validate(module, dataloaders=loaders, verbose=False)
    return dict(trainer.callback_metrics)


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the process as they do elsewhere; Lightning exits in its own ways."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if main and callable(handler):
            signal.signal(signal.SIGINT, handler)  # Lightning has it ignored by now
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        if isinstance(stop, SIGTERMException):
            raise SystemExit(128 + signal.SIGTERM) from stop
        raise


def plain(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """The config in plain types and without credentials, by default resolved."""
    found = OmegaConf.to_container(cfg, resolve=resolve, throw_on_missing=True)
    assert isinstance(found, dict)
    return {str(key): mask_config(value, str(key)) for key, value in found.items()}


def make_module(
    cfg: DictConfig, data: AnomalyDataModule, config: dict[str, Any]
) -> DistillationModule:
    """The networks, scoring, loss and optimizer of the config."""
    from anomalib_rd.networks import Distiller

    bins = cfg.metrics.max_bins
    if bins is not None and (not isinstance(bins, int) or bins < MIN_BINS):
        raise UserError(
            f"metrics.max_bins={bins}: give a number from {MIN_BINS} on, or null: exact metrics"
        )
    if cfg.metrics.pro_rd4ad and cfg.metrics.max_bins is not None:
        raise UserError(
            "metrics.pro_rd4ad=true needs all anomaly maps, and metrics.max_bins drops "
            "them: set one of the two"
        )
    pixels_on = check_pixels_on(cfg.metrics.pixels_on)
    parts = {part: build(cfg.model[part], f"model.{part}") for part in PARTS}
    try:
        distiller = Distiller(**parts)
    except Exception as error:  # the user's own code may raise anything
        if isinstance(error, UserError) or not (foreign := foreign_parts(cfg)):
            raise
        raise UserError(f"{', '.join(foreign)}: {one_line(error)}") from error
    if cfg.speed.channels_last:
        # The weights alone: the images and features follow them.
        distiller.to(memory_format=torch.channels_last)
    return DistillationModule(
        distiller=distiller,
        scorer=build(cfg.model.scoring, "model.scoring"),
        tiling=make_tiling(cfg),
        loss=build(cfg.loss, "loss"),
        optimizer=instantiate(cfg.optimizer),
        scheduler=instantiate(cfg.scheduler) if cfg.scheduler else None,
        categories=categories_of(data),
        no_masks=why_no_masks(data, pixels_on),
        known_pixels=known_pixels(data, pixels_on),
        with_pro_rd4ad=cfg.metrics.pro_rd4ad,
        pixel_bins=cfg.metrics.max_bins,
        feature_cache=usable_place(cfg.speed.feature_cache, cfg.data.transform),
        compile=cfg.speed.compile,
        config=config,
        config_digest=config_digest(cfg),
    )


def require_fitting_parts(cfg: DictConfig, module: DistillationModule) -> None:
    """Try one step with two black images, where a class that is not ours takes part.

    Networks and random numbers stay as they are.

    Raises:
        UserError: the parts do not fit together, or the loss cannot be trained by.
    """
    named = ", ".join([*foreign_parts(cfg), *foreign_loss(cfg)])
    if not named:
        return
    size = module.tiling.size or cfg.data.image_size
    try:
        distiller, loss = deepcopy((module.distiller, module.loss))
        with torch.random.fork_rng(devices=[]):
            found = distiller.train()(torch.zeros(2, 3, *size, dtype=torch.uint8))
            value = loss(*found)
    except Exception as error:  # the user's own code may raise anything
        raise UserError(f"{named}: fails in a trial step: {one_line(error)}") from error
    shapes = [[tuple(part.shape) for part in parts] for parts in reversed(found)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{named}: the student restores features of the shapes {shapes[0]}, the teacher's are"
            f" {shapes[1]}"
        )
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
        raise UserError(
            f"{named}: the loss must be a tensor of one number that depends on the restored"
            f" features, and is of type {type(value).__name__}"
            f"{tuple(value.shape) if isinstance(value, torch.Tensor) else ''}"
        )


def foreign_loss(cfg: DictConfig) -> list[str]:
    """The loss's key and class where it is not ours, in a list."""
    target = str(cfg.loss.get("_target_"))
    return [] if target in OWN_PARTS["loss"] else [f"loss ({target})"]


def foreign_parts(cfg: DictConfig) -> list[str]:
    """The parts of the model whose classes are not ours: key and class of each."""
    targets = {f"model.{part}": str(cfg.model[part].get("_target_")) for part in PARTS}
    return [
        f"{key} ({target})"
        for key, target in targets.items()
        if not target.startswith("anomalib_rd.")
    ]


PARTS = ("teacher", "masking", "fusion", "student")


def make_trainer(cfg: DictConfig, loggers: list[Any]) -> L.Trainer:
    """Lightning's trainer with the config's callbacks."""
    hush()
    callbacks = [instantiate(spec) for spec in cfg.callbacks.values() if spec]
    if cfg.model.ema_decay is not None:
        callbacks.append(MovingAverage(cfg.model.ema_decay))
    callbacks.append(Heartbeat(Path(cfg.run_dir)))
    plugins = instantiate(cfg.trainer.get("plugins")) or []
    looks = cfg.test_during_training or cfg.validation.kind
    limit = cfg.trainer.get("limit_val_batches")
    try:
        trainer: L.Trainer = instantiate(
            cfg.trainer,
            callbacks=callbacks,
            logger=loggers,
            plugins=[*plugins, AtomicCheckpointIO()],
            limit_val_batches=(1.0 if limit is None else limit) if looks else 0,
        )
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, (MisconfigurationException, ValueError, TypeError)):
            raise UserError(f"trainer: {' '.join(str(cause).split())}") from error
        raise
    return trainer


def hush() -> None:
    """Silence what Lightning says of matters that are as they should be."""
    for chatty in (
        "lightning.pytorch",
        "lightning.fabric",
        "lightning.pytorch.utilities.rank_zero",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for expected in (
        "Found .* module.s. in eval mode",  # the teacher
        "The .*dataloader.* does not have many workers",
        ".*isinstance.treespec, LeafSpec.",
        "The number of training batches",
        "Checkpoint directory .* exists and is not empty",
        "Be aware that when using .ckpt_path.",  # an evaluation needs no callbacks
        "You're using the WeightAveraging callback, but loading a checkpoint outside",  # nor this
        "The dirpath has changed from",  # a sweep's folder was moved, and the run resumed
    ):
        warnings.filterwarnings("ignore", expected)


def timed(work: Any) -> float:
    """Seconds that ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
