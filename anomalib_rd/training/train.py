"""Train, evaluate and record one run."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from anomalib_rd.data import AnomalyDataModule
from anomalib_rd.errors import NotFiniteError, UserError
from anomalib_rd.results.files import to_json_types
from anomalib_rd.results.record import FAILURE, write_failure
from anomalib_rd.results.sweeps import is_main_process
from anomalib_rd.tracking.wandb_logger import close_runs
from anomalib_rd.training.artifacts import map_scale, save_heatmaps, save_results, warn_on_error
from anomalib_rd.training.build import (
    identify_run,
    make_callbacks,
    make_data,
    make_evaluator,
    make_loggers,
    make_module,
    make_trainer,
    plain_config,
)
from anomalib_rd.training.callbacks import LossMonitor
from anomalib_rd.training.checkpoints import (
    CHECKPOINT,
    ResumePoint,
    find_resume_point,
    propagate_signals,
    update_checkpoint,
)
from anomalib_rd.training.config_checks import QUANTILE, check_config
from anomalib_rd.training.evaluated_run import EvaluatedRun
from anomalib_rd.training.evaluation import VAL, fit_scorer, score_batches
from anomalib_rd.training.fit_threshold import fit_threshold
from anomalib_rd.training.module import DistillationModule
from anomalib_rd.training.run_checks import (
    check_limits,
    check_run,
    log_possible_rate,
    warn_if_changed,
)

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train one model on one or several categories, evaluate it and write the record.

    Args:
        cfg: composed from conf/train.yaml.

    Returns:
        The value of ``optimized_metric``, for a hyperparameter search.

    Raises:
        UserError: any user error.
    """
    started = time.perf_counter()
    run_dir, objective = Path(cfg.run_dir), cfg.optimized_metric
    checkpoint, trains = run_dir / CHECKPOINT, cfg.model.train
    check_config(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)

    data, module = make_data(cfg), make_module(cfg)
    identity = identify_run(cfg, module, data)
    # A hyperparameter search needs the value of a complete run.
    resumable = trains and not objective
    resume = find_resume_point(run_dir, cfg, module, identity) if resumable else None
    if trains:
        check_run(module, data, cfg.model, cfg.loss)

    evaluator, losses = make_evaluator(cfg, data), LossMonitor()
    fast = bool(cfg.trainer.get("fast_dev_run"))  # Lightning logs nothing then
    loggers = [] if fast else make_loggers(cfg.logger, run_dir, resumed=resume is not None)
    callbacks = [*make_callbacks(cfg), losses, evaluator]
    trainer = make_trainer(cfg, callbacks, loggers, identity)
    check_limits(trainer, data, fit=trains)
    if trains and cfg.threshold.kind == QUANTILE and is_main_process():
        log_possible_rate(cfg.threshold.false_positive_rate, cfg.threshold.train_images, data)
    run = EvaluatedRun(module, data, evaluator, trainer, identity)
    run.config_as_written = plain_config(cfg, resolve=False)

    # Loggers start their run only here, after all checks.
    with record_divergence(run_dir, checkpoint), close_runs(loggers):
        for logger in loggers:
            logger.log_hyperparams(identity.config)
        if trains:
            run.train_s = timed(lambda: fit(trainer, module, data, resume))
            run.loss_curve, run.resumed_from = losses.curve, resume.epoch if resume else None
        standardise_scores(run, checkpoint)
        if not trains and trainer.checkpoint_callback:
            module.trainer = trainer
            trainer.strategy.connect(module)
            trainer.save_checkpoint(checkpoint)
        logged = dict(trainer.callback_metrics)
        if data.val_set is not None and evaluator.validation.get("epoch") != trainer.current_epoch:
            logged |= validate(trainer, module, data)
        with propagate_signals():
            run.test_s = timed(lambda: trainer.test(module, datamodule=data, verbose=False))
        if trainer.is_global_zero:
            with warn_on_error("no scale for heatmaps"):
                run.map_scale = map_scale(run)
            if trains:
                with warn_on_error("no threshold"):
                    run.threshold_s = timed(lambda: set_threshold(run, checkpoint))
            with warn_on_error("no pictures"):
                save_heatmaps(run, loggers, run_dir, count=cfg.report.heatmaps)
            with warn_on_error("the images are not compared with those at the start"):
                warn_if_changed(identity.data_files, data)
            run.total_s = time.perf_counter() - started
            save_results(run, run_dir)

    if objective is None:
        return None
    logged |= trainer.callback_metrics
    if objective not in logged:
        raise UserError(
            f"optimized_metric={objective}: not logged; choose one of {', '.join(logged)}"
        )
    return float(logged[objective])


def fit(
    trainer: L.Trainer,
    module: DistillationModule,
    data: AnomalyDataModule,
    resume: ResumePoint | None,
) -> None:
    """Train, from a checkpoint if there is one."""
    if resume is not None and trainer.is_global_zero:
        log.info("resumed after epoch %s of %s", resume.epoch, trainer.max_epochs)
    with propagate_signals():
        trainer.fit(module, datamodule=data, ckpt_path=resume.path if resume else None)


def validate(
    trainer: L.Trainer, module: DistillationModule, data: AnomalyDataModule
) -> dict[str, Any]:
    """Evaluate the held-out images with the current networks; returns the logged metrics."""
    with propagate_signals():
        trainer.validate(module, {VAL: data.val_dataloader()[VAL]}, verbose=False)
    return dict(trainer.callback_metrics)


def standardise_scores(run: EvaluatedRun, checkpoint: Path) -> None:
    """Fit a standardising scorer to the trained networks, and save it in the checkpoint."""
    with propagate_signals():
        fitted = fit_scorer(run.module, run.data, run.trainer)
    if fitted and run.trainer.is_global_zero and checkpoint.is_file():
        update_checkpoint(checkpoint, run.module.scorer.state_dict(prefix="scorer."))


def set_threshold(run: EvaluatedRun, checkpoint: Path) -> None:
    """Fit the run's threshold, and save it in the checkpoint."""
    run.threshold = fit_threshold(
        run.config["threshold"],
        run.data,
        lambda images: score_batches(run.module, run.data, run.trainer, images),
    )
    if checkpoint.is_file():
        threshold = to_json_types(vars(run.threshold)) if run.threshold else None
        update_checkpoint(checkpoint, threshold=threshold, map_scale=to_json_types(run.map_scale))


@contextmanager
def record_divergence(run_dir: Path, checkpoint: Path) -> Iterator[None]:
    """Write ``failure.json`` if losses or weights are not finite; the error names both files."""
    try:
        yield
    except NotFiniteError as error:
        saved = f", the last finite state in {checkpoint}" if checkpoint.is_file() else ""
        full = NotFiniteError(f"{error}; losses in {run_dir / FAILURE}{saved}", error.details)
        write_failure(run_dir, full)
        raise full from error


def timed(work: Callable[[], Any]) -> float:
    """Seconds that ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
