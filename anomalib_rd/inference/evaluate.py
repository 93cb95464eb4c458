"""Evaluation of a checkpoint, as at the end of its training, on the run's own or other data.

``<run>/evaluations/<name>/evaluation.json`` is like ``result.json`` (`anomalib_rd.results.record`)
without the results of the training (``oracle, test_curve, loss_curve, validation, threshold``),
and with

===================== ==========================================================================
``checkpoint``        ``{path relative to the evaluation's folder, sha256}``
``evaluation``        ``run`` (its name), ``overrides``, ``same_data`` (null: unknown; else whether
                      the data are the run's), ``equal`` (null, or whether all metrics and scores
                      equal the recorded ones), ``differing`` ``{metric: [recorded, now]}``
``at_threshold``      null, or the run's ``threshold`` on the test images: ``threshold``,
                      ``false_positive_rate`` (the promised one, or null), ``false_positives`` of
                      ``normals``, ``true_positives`` of ``defects``
``best_f1_threshold`` threshold that maximises F1 on these images; null without both classes
===================== ==========================================================================

Next to it are ``scores.csv``, ``curves.npz``, ``gallery.zip`` and ``heatmaps``, as in a run. Each
of several categories has a folder with an ``evaluation.json`` and these files.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from omegaconf import DictConfig

from anomalib_rd.errors import UserError
from anomalib_rd.inference.load import TrainedRun, require_own_teacher
from anomalib_rd.metrics.ranking import best_f1_threshold, rank_scores
from anomalib_rd.results.files import read_json
from anomalib_rd.results.record import RESULT, SCORES, category_folder, read_scores
from anomalib_rd.training.artifacts import (
    category_rows,
    map_scale,
    save_heatmaps,
    save_results,
)
from anomalib_rd.training.build import (
    identify_run,
    make_callbacks,
    make_data,
    make_evaluator,
    make_module,
    make_trainer,
)
from anomalib_rd.training.checkpoints import propagate_signals
from anomalib_rd.training.config_checks import check_evaluation_config
from anomalib_rd.training.evaluated_run import EvaluatedRun
from anomalib_rd.training.train import timed

EVALUATION = "evaluation.json"
OF_TRAINING = (
    *("oracle", "test_curve", "loss_curve", "validation", "threshold"),
    *("config_digest", "config_as_written"),
)


def evaluate(
    trained: TrainedRun,
    cfg: DictConfig,
    folder: Path,
    overrides: Sequence[str] = (),
    other_teacher: bool = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint on the test images of a config; saves and returns the record.

    With the run's data, machine and batch size, the results equal the recorded ones to the bit.

    Args:
        trained: the checkpoint.
        cfg: the run's config, possibly with other data.
        folder: of the new files; the run's own files are not changed.
        overrides: the user's changes of the config, for the record.
        other_teacher: whether the teacher may differ from the run's.

    Raises:
        UserError: the folder has an evaluation, the teacher differs, or the data are invalid.
    """
    started = time.perf_counter()
    if (folder / EVALUATION).is_file():
        raise UserError(f"{folder}: already has an evaluation; choose another --name, or delete it")
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    check_evaluation_config(cfg)
    data, module = make_data(cfg), make_module(cfg)
    identity = identify_run(cfg, module, data)
    teacher = identity.config["model"]["teacher"]
    require_own_teacher(trained, identity.teacher_sha256, teacher, other_teacher)
    evaluator = make_evaluator(cfg, data)
    trainer = make_trainer(cfg, [*make_callbacks(cfg), evaluator])
    run = EvaluatedRun(module, data, evaluator, trainer, identity)
    with propagate_signals():
        run.test_s = timed(
            lambda: trainer.test(module, datamodule=data, ckpt_path=trained.path, verbose=False)
        )
    run.map_scale = trained.map_scale or map_scale(run)
    save_heatmaps(run, [], folder, count=cfg.report.heatmaps)
    run.total_s = time.perf_counter() - started
    if len(data.categories) == 1:
        trained = with_category_record(trained, data.categories[0])

    def finish(result: dict[str, Any], category: str | None) -> dict[str, Any]:
        if category is None:
            return make_record(result, run.scores, trained, folder, overrides)
        scores, own = category_rows(run.scores, category), with_category_record(trained, category)
        return make_record(result, scores, own, category_folder(folder, category), overrides)

    return save_results(run, folder, EVALUATION, finish)


def with_category_record(trained: TrainedRun, category: str) -> TrainedRun:
    """The run with the record of one of its categories; unchanged if it has only one."""
    folder = category_folder(trained.folder, category)
    if not (folder / RESULT).is_file():
        return trained
    return replace(trained, folder=folder, record=read_json(folder / RESULT))


def make_record(
    result: dict[str, Any],
    scores: pd.DataFrame,
    trained: TrainedRun,
    folder: Path,
    overrides: Sequence[str],
) -> dict[str, Any]:
    """The record of an evaluation, as described above, from the record of a run."""
    record = {k: v for k, v in result.items() if k not in OF_TRAINING}
    for part, keys in (
        ("data", ("train_images",)),
        ("protocol", ("resumed_from_epoch", "test_curve", "validation", "chosen_on_test")),
        ("duration_s", ("train", "threshold")),
        ("images_per_s", ("train",)),
    ):
        record[part] = {k: v for k, v in record[part].items() if k not in keys}
    record["protocol"]["epochs"] = trained.epochs
    path = Path(os.path.relpath(trained.path.resolve(), folder.resolve())).as_posix()
    record["checkpoint"] = {"path": path, "sha256": trained.sha256}
    record["evaluation"] = {
        "run": trained.config.get("name"),
        "overrides": list(overrides),
        **compare_with_recorded(trained, record, scores),
    }
    defects = scores["label"].to_numpy() == 1
    ranking = rank_scores(scores["score"].to_numpy(), defects)
    record["best_f1_threshold"] = best_f1_threshold(ranking) if ranking.defined else None
    record["at_threshold"] = None
    if trained.threshold is not None:
        positives = scores["score"].to_numpy() >= trained.threshold.image
        record["at_threshold"] = {
            "threshold": trained.threshold.image,
            "false_positive_rate": trained.threshold.false_positive_rate,
            "false_positives": int((positives & ~defects).sum()),
            "normals": int((~defects).sum()),
            "true_positives": int((positives & defects).sum()),
            "defects": int(defects.sum()),
        }
    return record


def compare_with_recorded(
    trained: TrainedRun, record: Mapping[str, Any], scores: pd.DataFrame
) -> dict[str, Any]:
    """Whether the data are the run's and, if so, whether metrics and scores are equal."""
    fingerprint = record["data"]["fingerprint"]
    if trained.record is None:
        known = trained.data_fingerprint
        same_data = None if known is None else known == fingerprint
        return {"same_data": same_data, "equal": None, "differing": {}}
    if trained.record["data"].get("fingerprint") != fingerprint:
        return {"same_data": False, "equal": None, "differing": {}}
    recorded, now = all_metrics(trained.record), all_metrics(record)
    differing = {
        name: [recorded[name], now[name]]
        for name in recorded
        # null in a record is NaN
        if name in now
        and not (math.isnan(now[name]) if recorded[name] is None else recorded[name] == now[name])
    }
    equal = not differing
    if (trained.folder / SCORES).is_file():
        recorded_scores = read_scores(trained.folder)
        equal &= all(list(recorded_scores[c]) == list(scores[c]) for c in ("path", "score"))
    return {"same_data": True, "equal": equal, "differing": differing}


def all_metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics, and those of several categories as ``category/metric``."""
    parts = record.get("categories", {}).items()
    return record["metrics"] | {f"{c}/{name}": v for c, own in parts for name, v in own.items()}
