"""One run, from config to record."""

import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from anomalib_rd.data import AnomalyDataModule, ImageCache, Source, select_categories
from anomalib_rd.errors import UserError
from anomalib_rd.results.identity import config_digest
from anomalib_rd.tracking.lifetime import tracked
from anomalib_rd.training.checkpoints import CHECKPOINT, AtomicCheckpointIO, Restart, find_restart
from anomalib_rd.training.choices import check_choices
from anomalib_rd.training.feature_cache import usable_place
from anomalib_rd.training.gallery import require_count
from anomalib_rd.training.heartbeat import Heartbeat
from anomalib_rd.training.loggers import make_loggers
from anomalib_rd.training.module import VAL, DistillationModule
from anomalib_rd.training.outcome import Outcome, leave_record, show_images
from anomalib_rd.training.threshold import check_threshold, set_threshold

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train one model on one category, judge it by its last epoch and leave the record.

    Args:
        cfg: composed from conf/train.yaml.

    Returns:
        The value named by ``objective``, for a hyper-parameter search.

    Raises:
        UserError: whatever the user can mend.
    """
    started = time.perf_counter()
    run_dir = Path(cfg.run_dir)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    config = plain(cfg)
    require_count(cfg.gallery)
    check_choices(cfg)
    check_threshold(cfg)
    data = make_data(cfg)
    module = make_module(cfg, data, config)
    restart = find_restart(run_dir, cfg, module) if cfg.model.fit and not cfg.objective else None
    loggers = make_loggers(cfg, run_dir, resumed=restart is not None)
    trainer = make_trainer(cfg, loggers)
    # All that a user can get wrong has been seen by now: only then a tracked run begins.
    with tracked(loggers):
        for logger in loggers:
            logger.log_hyperparams(config)
        outcome = Outcome(module=module, data=data, config=config, trainer=trainer)
        if cfg.model.fit:
            outcome.train_s = timed(lambda: fit(trainer, module, data, restart))
            outcome.resumed_from = restart.epoch if restart else None
        elif trainer.checkpoint_callback:
            module.trainer = trainer
            trainer.strategy.connect(module)
            trainer.save_checkpoint(run_dir / CHECKPOINT)
        logged = dict(trainer.callback_metrics)
        if data.val_set is not None and module.validation.get("epoch") != trainer.current_epoch:
            logged |= validate(trainer, module, data)
        with stoppable():
            outcome.test_s = timed(lambda: trainer.test(module, datamodule=data, verbose=False))
        if trainer.is_global_zero:
            outcome.threshold_s = timed(lambda: set_threshold(outcome))
            show_images(outcome, loggers, run_dir, count=cfg.heatmaps)
            outcome.total_s = time.perf_counter() - started
            leave_record(outcome, run_dir)
    if cfg.objective is None:
        return None
    logged |= trainer.callback_metrics
    if cfg.objective not in logged:
        raise UserError(f"objective={cfg.objective}: not logged; there are {', '.join(logged)}")
    return float(logged[cfg.objective])


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


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config in plain types."""
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def make_data(cfg: DictConfig) -> AnomalyDataModule:
    """The data module of the one category that the config names."""
    source: Source = instantiate(cfg.data.source)
    categories = select_categories(source, cfg.data.category)
    if len(categories) > 1:
        raise UserError(
            f"data.category={cfg.data.category}: one run trains one category and these are "
            f"{len(categories)}; add -m to train one model each"
        )
    return AnomalyDataModule(
        source=source,
        category=categories[0],
        image_size=cfg.data.image_size,
        train_batch_size=cfg.data.train_batch_size,
        test_batch_size=cfg.data.test_batch_size,
        num_workers=cfg.data.num_workers,
        transform=instantiate(cfg.data.transform) if cfg.data.transform else None,
        seed=cfg.seed,
        cache=ImageCache() if cfg.speed.image_cache else None,
        val=cfg.data.val,
        val_share=cfg.data.val_share,
        test_curve=cfg.test_curve,
    )


def make_module(
    cfg: DictConfig, data: AnomalyDataModule, config: dict[str, Any]
) -> DistillationModule:
    """The networks, scoring, loss and optimizer of the config."""
    from anomalib_rd.networks import Distiller

    if cfg.pro_rd4ad and cfg.pixel_bins is not None:
        raise UserError(
            "pro_rd4ad=true needs all anomaly maps, and pixel_bins drops them: set one of the two"
        )
    parts = {part: instantiate(cfg.model[part]) for part in PARTS}
    distiller = Distiller(**parts)
    if cfg.speed.channels_last:
        # The weights alone: the images and features follow them.
        distiller.to(memory_format=torch.channels_last)
    return DistillationModule(
        distiller=distiller,
        scorer=instantiate(cfg.model.scoring),
        loss=instantiate(cfg.loss),
        optimizer=instantiate(cfg.optimizer),
        scheduler=instantiate(cfg.scheduler) if cfg.scheduler else None,
        no_masks=why_no_masks(data),
        with_pro_rd4ad=cfg.pro_rd4ad,
        pixel_bins=cfg.pixel_bins,
        feature_cache=usable_place(cfg.speed.feature_cache, cfg.data.transform),
        compile=cfg.speed.compile,
        config=config,
        config_digest=config_digest(cfg),
    )


PARTS = ("teacher", "masking", "fusion", "student")


def make_trainer(cfg: DictConfig, loggers: list[Any]) -> L.Trainer:
    """Lightning's trainer with the config's callbacks."""
    hush()
    callbacks = [instantiate(spec) for spec in cfg.callbacks.values()]
    callbacks.append(Heartbeat(Path(cfg.run_dir)))
    plugins = instantiate(cfg.trainer.get("plugins")) or []
    try:
        trainer: L.Trainer = instantiate(
            cfg.trainer,
            callbacks=callbacks,
            logger=loggers,
            plugins=[*plugins, AtomicCheckpointIO()],
            limit_val_batches=1.0 if cfg.test_curve or cfg.data.val else 0,
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
        "The dirpath has changed from",  # a sweep's folder was moved, and the run resumed
    ):
        warnings.filterwarnings("ignore", expected)


def why_no_masks(data: AnomalyDataModule) -> str | None:
    """Why pixel metrics are undefined on this data, or None."""
    defects = [s for s in data.split.test if s.label]
    without = sum(s.mask is None for s in defects)
    if not without:
        return None
    return f"{without} of {len(defects)} defect images have no ground-truth mask"


def timed(work: Any) -> float:
    """Seconds that ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
