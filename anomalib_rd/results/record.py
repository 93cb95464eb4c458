"""The record of a run: files that are written when the run is complete.

``<run>/result.json`` (``schema_version`` 1) is written last, so its presence means that the run is
complete, unless ``protocol.partial`` is set:

=================== ============================================================================
``name``            the run's name
``data``            ``name, category, group ("texture"|"object"), fingerprint (sha256),
                    train_images, test_images {defect: count}`` of the data set
``model``           ``name, teacher, teacher_sha256`` (of its state, see `results.identity`),
                    ``weights_sha256`` (of its weights file; null: no file)
``seed``            int
``protocol``        ``headline ("last epoch"), epochs, resumed_from_epoch (null: not resumed),
                    partial (null, or {limits: {trainer argument: value}, judged_images}: limited
                    by Lightning's trainer arguments, never pooled with complete runs),
                    image_size [H, W], test_curve (bool), validation (null, or {kind: "synthetic",
                    images: {good, synthetic}, share}: held out of train_images),
                    pixels_judged (null: all test images, or {defect type: {judged, of}}: pixel
                    metrics use the normal images and these images with masks),
                    chosen_on_test (bool: a search optimised a metric of the test set)``
``metrics``         ``{name: fraction in [0, 1] or null}``; null: undefined, read as NaN
``undefined``       ``{metric: why it is null}``
``bounds``          ``{metric: [min, max]}`` of the exact value; empty if all are exact
``oracle``          null, or ``{epoch, metrics...}`` of the best epoch on test (never the headline)
``test_curve``      ``[{epoch, metrics...}]``, empty unless requested
``loss_curve``      mean training loss of each epoch
``validation``      null, or like ``metrics``: last epoch, on the held-out images
``threshold``       null, or the fields of `results.threshold.Threshold`, and ``requested_rate``,
                    the requested false positive rate, or null
``map_scale``       null, or ``[low, high]``: map values of the heatmaps' first and last colour
``duration_s``      ``train, test, threshold, total`` in seconds, since the last resume
``images_per_s``    ``train, test``
``provenance``      ``software, hardware, git, command`` (see `results.provenance`)
``checkpoint``      null, or ``{path relative to the run, sha256}``
``config``          the resolved config
``choices``         absent, or ``{config group: choice}``, such as ``{"model/masking": "none"}``:
                    for the names of variants
``config_as_written`` null, or the config with its interpolations, which `train --from` repeats
``config_digest``   identity of the run (see `results.identity`)
``categories``      only for several categories (``data.unified``): ``{category: metrics}``; all
                    other metrics are their means
=================== ============================================================================

In the same folder: ``scores.csv`` (one row for each test image: ``path`` relative to the data's
root, ``category, defect, label, score``), ``curves.npz`` (named arrays), and for a failed run
``failure.json`` (``error``, ``traceback``; if training diverged ``loss_curve`` and
``batch_losses`` of the last epoch). JSON has neither NaN nor infinity: these become null.

A later evaluation of a checkpoint writes the same files into ``<run>/evaluations/<name>``, with
``evaluation.json`` instead of ``result.json``: see `anomalib_rd.inference.evaluate`.

A run of several categories (``data.unified=true``) also has ``<run>/per_category/<name>`` with the
files that a run of that category alone would have. Tables list these folders instead of the run,
once it is complete. The oracle of each is at the epoch with the best mean; threshold, durations and
images/s are those of the run. A metric that is undefined for one category is undefined in the run's
record.
"""

import math
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.errors import NotFiniteError, UserError
from anomalib_rd.results.files import (
    one_line,
    read_json,
    to_json_types,
    write_atomically,
    write_json,
)
from anomalib_rd.results.provenance import mask_config, mask_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SCHEMA_VERSION = 1
RESULT, FAILURE, SCORES, CURVES = "result.json", "failure.json", "scores.csv", "curves.npz"
EVALUATIONS, PER_CATEGORY = "evaluations", "per_category"
SCORE_COLUMNS = ["path", "category", "defect", "label", "score"]
REQUIRED = (
    "data.name",
    "data.category",
    "data.group",
    "model.name",
    "model.teacher",
    "protocol.headline",
    "protocol.epochs",
    "metrics",
    "config",
    "seed",
)
MAX_SET_NAME = 40  # characters
_SKIPPED_FOLDERS = {"checkpoints", "heatmaps", "wandb", EVALUATIONS, PER_CATEGORY}


def write_record(
    run_dir: Path | str,
    result: Mapping[str, Any],
    scores: "pd.DataFrame",
    curves: Mapping[str, "np.ndarray"],
    name: str = RESULT,
) -> Path:
    """Write ``curves.npz``, ``scores.csv`` and, last, ``result.json``, each atomically.

    The ``failure.json`` of an earlier attempt is removed.

    Args:
        run_dir: the run's folder, created if missing.
        result: the record without ``schema_version``; secrets in its configs are masked.
        scores: one row for each test image, with the columns `SCORE_COLUMNS`.
        curves: name -> array of any shape.
        name: file name of the record, ``evaluation.json`` for an evaluation.

    Returns:
        The path of the record.

    Raises:
        KeyError: a key of the record or a column of the scores is missing.
        OSError: the folder cannot be written.
    """
    import numpy as np

    folder = Path(run_dir)
    if missing := _missing_key(result):
        raise KeyError(f"{missing!r} is missing in the result")
    record = {"schema_version": SCHEMA_VERSION, **to_json_types(result)}
    for config in ("config", "config_as_written"):
        if record.get(config):
            record[config] = mask_config(record[config])
    table = scores[SCORE_COLUMNS].astype({"score": float})

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(array) for name, array in curves.items()}
    write_atomically(
        folder / CURVES, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays)
    )
    # A file name may contain bytes that are not UTF-8.
    text = table.to_csv(index=False).encode(errors="backslashreplace")
    write_atomically(folder / SCORES, lambda file: file.write(text))
    path = write_json(folder / name, record)
    (folder / FAILURE).unlink(missing_ok=True)
    return path


def write_failure(run_dir: Path | str, error: BaseException) -> Path:
    """Write ``failure.json``: the error's type and message, its traceback, and its details."""
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    trace = mask_text("".join(traceback.format_exception(error)))
    failure = {"error": mask_text(f"{type(error).__name__}: {error}"), "traceback": trace}
    details = error.details if isinstance(error, NotFiniteError) else {}
    return write_json(folder / FAILURE, to_json_types(details) | failure)


def read_record(run: Path | str) -> dict[str, Any]:
    """Read ``result.json``; null in metrics, oracle, validation and test curve becomes NaN.

    Args:
        run: the run's folder, or the file, with any name.

    Raises:
        UserError: the file is missing, is not JSON, has another schema version, or a key is
            missing.
    """
    path = Path(run) if Path(run).is_file() else Path(run) / RESULT
    record = read_json(path)
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; "
            "use the anomalib-rd that wrote it, or run it again"
        )
    if missing := _missing_key(record):
        raise UserError(f"{path}: {missing!r} is missing; the file is damaged, run it again")
    record["metrics"] = _null_to_nan(record["metrics"])
    record["oracle"] = _null_to_nan(record["oracle"]) if record.get("oracle") else None
    if record.get("validation"):
        record["validation"] = _null_to_nan(record["validation"])
    record["test_curve"] = [_null_to_nan(point) for point in record.get("test_curve") or []]
    return record


def _missing_key(record: Mapping[str, Any]) -> str | None:
    for key in REQUIRED:
        group, _, name = key.partition(".")
        if group not in record or (group != "seed" and not isinstance(record[group], Mapping)):
            return group
        if name and name not in record[group]:
            return key
    return None


def _null_to_nan(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in metrics.items()}


def trainer_limits(record: Mapping[str, Any]) -> str:
    """The trainer limits of a partial run, such as ``limit_test_batches=1``; "" if complete."""
    partial = (record.get("protocol") or {}).get("partial") or {}
    return ", ".join(f"{name}={value}" for name, value in (partial.get("limits") or {}).items())


def read_scores(run_dir: Path | str) -> "pd.DataFrame":
    """Read ``scores.csv``: one row for each test image, columns `SCORE_COLUMNS`.

    Raises:
        UserError: the file is missing or not such a table.
    """
    import pandas as pd

    path = Path(run_dir) / SCORES
    try:
        # Categories and defects named "001", "none" or "NA" stay text.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[SCORE_COLUMNS]
        table["score"] = table["score"].replace("", "nan")
        return table.astype({"label": int, "score": float})
    except (OSError, ValueError, KeyError) as error:
        message = f"{path}: cannot be read as a table of scores ({one_line(error)})"
        raise UserError(message) from error


def read_curves(run_dir: Path | str) -> dict[str, "np.ndarray"]:
    """Read ``curves.npz``: name -> array.

    Raises:
        UserError: the file is missing or damaged.
    """
    import numpy as np

    path = Path(run_dir) / CURVES
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each raise different ones
        raise UserError(f"{path}: cannot be read as curves ({one_line(error)})") from error


def read_failure(run_dir: Path | str) -> dict[str, str]:
    """Read ``failure.json``: ``error`` and ``traceback``.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    return read_json(Path(run_dir) / FAILURE)


def find_runs(*folders: Path | str) -> list[Path]:
    """The complete runs (folders with ``result.json``) in or below the folders, sorted.

    A run of several categories is replaced by its category folders.

    Raises:
        UserError: a folder does not exist, or no folder contains a complete run.
    """
    runs = _find(RESULT, folders)
    if runs:
        return [folder for run in runs for folder in record_folders(run, RESULT)]
    where = ", ".join(str(folder) for folder in folders) or "no folder"
    failed = len(find_failures(*folders))
    hint = f"; {failed} failed, see their {FAILURE}" if failed else ""
    raise UserError(f"no complete run ({RESULT}) in {where}{hint}")


def find_unreadable(*folders: Path | str) -> list[str]:
    """One line for each record in or below the folders that cannot be read.

    Raises:
        UserError: a folder does not exist, or no folder contains a record.
    """
    errors = []
    for run in find_runs(*folders):
        try:
            read_record(run)
        except UserError as error:
            errors.append(str(error))
    return errors


def find_failures(*folders: Path | str) -> list[Path]:
    """The folders with ``failure.json`` in or below the folders, sorted; may be empty.

    Raises:
        UserError: a folder does not exist.
    """
    return _find(FAILURE, folders)


def _find(name: str, folders: Sequence[Path | str]) -> list[Path]:
    paths: dict[Path, Path] = {}
    for folder in folders:
        for path in _walk(Path(folder), name):
            paths.setdefault(path.resolve(), path)
    return sorted(paths.values())


def _walk(top: Path, name: str) -> Iterator[Path]:
    if not top.is_dir():
        raise UserError(f"{top}: no such folder; give the folder of a run or sweep")
    for folder, children, files in os.walk(top):
        if name in files:
            yield Path(folder)
        if RESULT in files or FAILURE in files:  # a run contains no other runs
            children.clear()
        children[:] = [c for c in children if c not in _SKIPPED_FOLDERS and not c.startswith(".")]


def category_folder(run_dir: Path | str, category: str) -> Path:
    """The folder of one category in a run of several categories."""
    return Path(run_dir) / PER_CATEGORY / category


def record_folders(run_dir: Path, name: str) -> list[Path]:
    """Folders with records of this file name: those of a run's categories, else the run's own."""
    folders = sorted(path.parent for path in (run_dir / PER_CATEGORY).glob(f"*/{name}"))
    return folders or [run_dir]


def parent_run(folder: Path | str) -> Path:
    """The run that a folder of `record_folders` belongs to."""
    path = Path(folder)
    return path.parent.parent if path.parent.name == PER_CATEGORY else path


def category_set_name(category: Any) -> str:
    """``data.category`` as part of a run's or folder's name.

    ``bottle``; ``bottle+pill`` for a set, or ``unified-15`` for a long one.
    """
    if isinstance(category, str) or not isinstance(category, Sequence):
        return str(category)
    names = "+".join(map(str, category))
    return names if len(names) <= MAX_SET_NAME else f"unified-{len(category)}"
