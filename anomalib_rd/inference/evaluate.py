"""A checkpoint judged again, as at the end of its training, on the run's own data or on others.

``<run>/evaluations/<name>/evaluation.json`` is like ``result.json`` (`anomalib_rd.results.record`),
without what is of the training (``oracle, test_curve, loss_curve, validation, threshold``), with

=================== ============================================================================
``checkpoint``      ``{path relative to the evaluation's folder, sha256}`` of what was judged
``evaluation``      ``run`` (its name), ``overrides``, ``same_data`` (null: no fingerprint to
                    compare with; else whether the data have the run's), ``equal`` (null, or
                    whether all metrics and scores equal those on record), ``differing``
                    ``{metric: [on record, now]}``
``at_threshold``    null, or what the run's ``threshold`` makes of the test images:
                    ``threshold``, ``false_positive_rate`` that it promises (null: none),
                    ``false_positives`` of ``normals``, ``true_positives`` of ``defects``
``best_f1_from``    the score from which on the F1 of these images is best; null without both kinds
=================== ============================================================================

Beside it ``scores.csv``, ``curves.npz``, ``gallery.zip`` and ``heatmaps`` as a run has them. Of
several categories each has an ``evaluation.json`` and these in a folder of its own, as the run has
them (`anomalib_rd.results.record`).
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
from anomalib_rd.inference.checkpoint import Trained
from anomalib_rd.inference.load import require_own_teacher
from anomalib_rd.metrics.ranking import best_f1_threshold, rank_scores
from anomalib_rd.results.files import read_json
from anomalib_rd.results.record import RESULT, SCORES, category_folder, read_scores
from anomalib_rd.results.threshold import Threshold
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
from anomalib_rd.training.checks import check_evaluation_config
from anomalib_rd.training.run_record import EvaluatedRun
from anomalib_rd.training.train import timed

EVALUATION = "evaluation.json"
OF_TRAINING = (
    *("oracle", "test_curve", "loss_curve", "validation", "threshold"),
    *("config_digest", "config_as_written"),
)


def evaluate(
    trained: Trained,
    cfg: DictConfig,
    folder: Path,
    overrides: Sequence[str] = (),
    other_teacher: bool = False,
) -> dict[str, Any]:
    """Judge a checkpoint by the test images that a config names, and leave the record.

    On the run's own data, on the machine that trained it and with its batch size, the numbers are
    those on record, to the bit.

    Args:
        trained: the checkpoint.
        cfg: the run's config, with other data perhaps.
        folder: where to write; the run's own files are not touched.
        overrides: what the user changed in the config, for the record.
        other_teacher: whether the teacher may be another one than the run was trained with.

    Returns:
        The record.

    Raises:
        UserError: the folder holds an evaluation, the teacher is another one, or what a run
            finds wrong with the data.
    """
    started = time.perf_counter()
    if (folder / EVALUATION).is_file():
        raise UserError(f"{folder}: holds an evaluation; take another --name, or remove that one")
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
        trained = part_of(trained, data.categories[0])
    scores = run.scores

    def finished(result: dict[str, Any], category: str | None) -> dict[str, Any]:
        if category is None:
            return record_of(result, scores, trained, folder, overrides)
        own, part = category_rows(scores, category), part_of(trained, category)
        return record_of(result, own, part, category_folder(folder, category), overrides)

    return save_results(run, folder, EVALUATION, finished)


def part_of(trained: Trained, category: str) -> Trained:
    """What was trained on several categories, with the record of one; any other as it is."""
    folder = category_folder(trained.folder, category)
    if not (folder / RESULT).is_file():
        return trained
    return replace(trained, folder=folder, record=read_json(folder / RESULT))


def record_of(
    result: dict[str, Any],
    scores: pd.DataFrame,
    trained: Trained,
    folder: Path,
    overrides: Sequence[str],
) -> dict[str, Any]:
    """The record of an evaluation, as described above, from what a run's would be."""
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
        **compared(trained, record, scores),
    }
    threshold = trained.threshold
    record["at_threshold"] = threshold and counts(threshold, scores)
    record["best_f1_from"] = best_f1_from(scores)
    return record


def compared(trained: Trained, record: Mapping[str, Any], scores: pd.DataFrame) -> dict[str, Any]:
    """How the numbers are beside those on record, if they are of the same data."""
    if trained.record is None:
        before = trained.data_fingerprint
        known = None if before is None else before == record["data"]["fingerprint"]
        return {"same_data": known, "equal": None, "differing": {}}
    if trained.record["data"].get("fingerprint") != record["data"]["fingerprint"]:
        return {"same_data": False, "equal": None, "differing": {}}
    there, here = numbers(trained.record), numbers(record)
    differing = {
        name: [there[name], here[name]]
        for name in there
        if name in here and not same(there[name], here[name])
    }
    equal = not differing
    if (trained.folder / SCORES).is_file():
        kept = read_scores(trained.folder)
        equal &= list(kept["path"]) == list(scores["path"])
        equal &= list(kept["score"]) == list(scores["score"])
    return {"same_data": True, "equal": equal, "differing": differing}


def numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics, and as ``category/metric`` those of several categories."""
    parts = record.get("categories", {}).items()
    return record["metrics"] | {f"{c}/{name}": v for c, own in parts for name, v in own.items()}


def same(before: float | None, now: float) -> bool:
    """Equal to the bit; null on record is NaN."""
    return math.isnan(now) if before is None else before == now


def counts(threshold: Threshold, scores: pd.DataFrame) -> dict[str, Any]:
    """What the threshold makes of the test images."""
    flagged, defect = scores["score"] >= threshold.image, scores["label"] == 1
    return {
        "threshold": threshold.image,
        "false_positive_rate": threshold.false_positive_rate,
        "false_positives": int((flagged & ~defect).sum()),
        "normals": int((~defect).sum()),
        "true_positives": int((flagged & defect).sum()),
        "defects": int(defect.sum()),
    }


def best_f1_from(scores: pd.DataFrame) -> float | None:
    """The threshold that these images would have chosen; None of one kind alone."""
    ranking = rank_scores(scores["score"].to_numpy(), scores["label"].to_numpy() == 1)
    return best_f1_threshold(ranking) if ranking.defined else None
