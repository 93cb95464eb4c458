"""The record of one run: files written when the run is over, and read back for tables.

``<run>/result.json`` (``schema_version`` 1) is written last, so its presence means that the
run is complete, unless ``protocol.partial`` says otherwise:

=================== ============================================================================
``name``            the run's name
``data``            ``name, category, group ("texture"|"object"), fingerprint (sha256),
                    train_images, test_images {defect: count}`` of the data set
``model``           ``name, teacher, teacher_sha256`` (of its state, see `results.teacher`) and
                    ``weights_sha256`` (of the file of its weights, null: from no file)
``seed``            int
``protocol``        ``headline ("last epoch"), epochs, resumed_from_epoch (null: in one go),
                    partial (null, or {limits: {trainer argument: value}, judged_images}: cut
                    short by Lightning's limits; never complete, never pooled with whole runs),
                    image_size [H, W], test_curve (bool), validation (null, or {kind: "synthetic",
                    images: {good, synthetic}, share}: held out of train_images),
                    pixels_judged (null: all test images, or {defect type: {judged, of}}: the
                    pixel metrics are of normal images and of these that have masks),
                    chosen_on_test (bool: a search was given a metric of the test set)``
``metrics``         ``{name: fraction in [0, 1] or null}``; null means undefined (read as NaN)
``undefined``       ``{metric: why it is null}``
``bounds``          ``{metric: [least, greatest]}`` its exact value can be; empty if all are exact
``oracle``          null, or ``{epoch, metrics...}`` of the best epoch on test (never the headline)
``test_curve``      ``[{epoch, metrics...}]``, empty unless asked for
``loss_curve``      mean training loss of each epoch
``validation``      null, or like ``metrics``: of the last epoch on the images held out
``threshold``       null, or what makes an image anomalous: see `anomalib_rd.results.threshold`;
                    with ``requested_rate``, the false positive rate that was asked for, or null
``map_scale``       null, or ``[low, high]``: map values of the heatmaps' first and last colour
``duration_s``      ``train, test, threshold, total`` in seconds; of a resumed run: of its last part
``images_per_s``    ``train, test``
``provenance``      ``software, hardware, git, command`` (see `anomalib_rd.results.provenance`)
``checkpoint``      null, or ``{path relative to the run, sha256}``
``config``          the resolved config
``choices``         absent, or ``{config group: the choice in it}``, such as
                    ``{"model/masking": "none"}``: the words by which variants are called
``config_as_written`` the same with its interpolations, which `train --from` repeats; else null
``config_digest``   what makes it another run (see `anomalib_rd.results.identity`)
``categories``      only of a run of several (``data.unified``): ``{category: metrics}``; all other
                    metrics are their means, and each has a record: see `category_folder`
=================== ============================================================================

Beside it: ``scores.csv`` (one row for each test image: ``path`` relative to the data's root,
``category, defect, label, score``), ``curves.npz`` (named arrays), and for a
run that failed ``failure.json`` (``error``, ``traceback``; where training diverged ``loss_curve``
and ``batch_losses`` of the last epoch).

A checkpoint judged again later leaves the like in ``<run>/evaluations/<name>``, with
``evaluation.json`` in the place of ``result.json``: see `anomalib_rd.inference.evaluate`.

JSON has no NaN and no infinity: numbers that are not finite become null.

A run of several categories (``data.unified=true``) and the records of its categories.

Beside the run's own files each category leaves, in ``<run>/per_category/<name>``, what a run of
that category alone would leave: record, scores, curves, gallery and heatmaps. Whoever looks for
runs is given these in the place of the run, so that a unified model stands in a table as one model
per category does, and no reader needs to know of it. They count once the run itself is complete.

In a category's record the data and all metrics are its own; the oracle is at the epoch with the
best mean, for one model has one best epoch; threshold, durations and images/s are the whole run's.
In the run's a metric that one category lacks is undefined.
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

PER_CATEGORY = "per_category"
LONGEST = 40  # characters of a name in a folder's or a run's


def category_folder(run_dir: Path | str, category: str) -> Path:
    """Where a unified run leaves what is of one of its categories."""
    return Path(run_dir) / PER_CATEGORY / category


def record_folders(run_dir: Path, record: str) -> list[Path]:
    """The folders with the records of a complete run: its own, or those of its categories.

    Args:
        run_dir: the run's.
        record: the name of the file, ``result.json``.
    """
    found = sorted(path.parent for path in (run_dir / PER_CATEGORY).glob(f"*/{record}"))
    return found or [run_dir]


def parent_run(folder: Path | str) -> Path:
    """The run that a folder of `record_folders` is of."""
    path = Path(folder)
    return path.parent.parent if path.parent.name == PER_CATEGORY else path


def category_set_name(category: Any) -> str:
    """What ``data.category`` is called in names of runs and folders.

    One category is called as it is, a set by all its names (``bottle+pill``), or, where these are
    long, by their number: the hash of the config in a sweep's folder tells such sets apart.
    """
    if isinstance(category, str) or not isinstance(category, Sequence):
        return str(category)
    names = "+".join(map(str, category))
    return names if len(names) <= LONGEST else f"unified-{len(category)}"


SCHEMA_VERSION = 1
RESULT, FAILURE, SCORES, CURVES = "result.json", "failure.json", "scores.csv", "curves.npz"
EVALUATIONS = "evaluations"
SCORE_COLUMNS = ["path", "category", "defect", "label", "score"]
REQUIRED = {
    "data": ("name", "category", "group"),
    "model": ("name", "teacher"),
    "protocol": ("headline", "epochs"),
    "metrics": (),
    "config": (),
}
_NOT_SEARCHED = {"checkpoints", "heatmaps", "wandb", EVALUATIONS, PER_CATEGORY}


def write_record(
    run_dir: Path | str,
    result: Mapping[str, Any],
    scores: "pd.DataFrame",
    curves: Mapping[str, "np.ndarray"],
    name: str = RESULT,
) -> Path:
    """Writes ``curves.npz``, ``scores.csv`` and, last, ``result.json``, each atomically.

    A ``failure.json`` that an earlier try left is removed: the run is complete now.

    Args:
        run_dir: the run's folder, made if it does not exist.
        result: the record as described above; ``schema_version`` is added here, and values
            in ``config`` that look like secrets are masked.
        scores: one row for each test image, with the columns of ``SCORE_COLUMNS``.
        curves: name -> array of any shape.
        name: of the file of the record: ``evaluation.json`` of an evaluation.

    Returns:
        The path of the record.

    Raises:
        KeyError: a part of the record or a column of the scores is missing.
        OSError: the folder cannot be written.
    """
    import numpy as np

    folder = Path(run_dir)
    missing = _missing_keys(result)
    if missing is not None:
        raise KeyError(f"result lacks {missing!r}")
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
    # A file name need not be UTF-8.
    text = table.to_csv(index=False).encode(errors="backslashreplace")
    write_atomically(folder / SCORES, lambda file: file.write(text))
    path = write_json(folder / name, record)
    (folder / FAILURE).unlink(missing_ok=True)
    return path


def write_failure(run_dir: Path | str, error: BaseException) -> Path:
    """Writes ``failure.json``: the error's type and message, its traceback, and its details."""
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    trace = mask_text("".join(traceback.format_exception(error)))
    failure = {"error": mask_text(f"{type(error).__name__}: {error}"), "traceback": trace}
    details = error.details if isinstance(error, NotFiniteError) else {}
    return write_json(folder / FAILURE, to_json_types(details) | failure)


def read_record(run: Path | str) -> dict[str, Any]:
    """Reads ``result.json``; null in metrics, oracle, validation and test curve comes back as NaN.

    Args:
        run: the run's folder, or the file, which may have been given another name.

    Raises:
        UserError: the file is missing, no JSON, of another schema version, or lacks a part.
    """
    path = Path(run) if Path(run).is_file() else Path(run) / RESULT
    record = read_json(path)
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; "
            "use the anomalib-rd that wrote it, or run it again"
        )
    missing = _missing_keys(record)
    if missing is not None:
        raise UserError(f"{path}: lacks {missing!r}; the file is damaged, run it again")
    record["metrics"] = _nan(record["metrics"])
    record["oracle"] = _nan(record["oracle"]) if record.get("oracle") else None
    if record.get("validation"):
        record["validation"] = _nan(record["validation"])
    record["test_curve"] = [_nan(point) for point in record.get("test_curve") or []]
    return record


def trainer_limits(record: Mapping[str, Any]) -> str:
    """The limits that a run was cut short by, such as ``limit_test_batches=1``; "" if whole."""
    partial = (record.get("protocol") or {}).get("partial") or {}
    return ", ".join(f"{name}={value}" for name, value in (partial.get("limits") or {}).items())


def read_scores(run_dir: Path | str) -> "pd.DataFrame":
    """Reads ``scores.csv``: one row for each test image, columns ``SCORE_COLUMNS``.

    Raises:
        UserError: the file is missing or is no such table.
    """
    import pandas as pd

    path = Path(run_dir) / SCORES
    try:
        # Categories and defects may be called "001", "none" or "NA": they stay text.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[SCORE_COLUMNS]
        table["score"] = table["score"].replace("", "nan")
        return table.astype({"label": int, "score": float})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a table of scores ({one_line(error)})") from (
            error
        )


def read_curves(run_dir: Path | str) -> dict[str, "np.ndarray"]:
    """Reads ``curves.npz``: name -> array.

    Raises:
        UserError: the file is missing or damaged.
    """
    import numpy as np

    path = Path(run_dir) / CURVES
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise UserError(f"{path}: cannot be read as curves ({one_line(error)})") from error


def read_failure(run_dir: Path | str) -> dict[str, str]:
    """Reads ``failure.json``: ``error`` and ``traceback``.

    Raises:
        UserError: the file is missing or no JSON.
    """
    return read_json(Path(run_dir) / FAILURE)


def find_runs(*folders: Path | str) -> list[Path]:
    """The complete runs (folders with ``result.json``) in or under the folders, sorted.

    In the place of a run of several categories there are their folders in it.

    Raises:
        UserError: a folder does not exist, or there is no complete run in any of them.
    """
    runs = _find(RESULT, folders)
    if runs:
        return [part for run in runs for part in record_folders(run, RESULT)]
    where = ", ".join(str(folder) for folder in folders) or "no folder"
    failed = len(find_failures(*folders))
    hint = f"; {failed} failed, see their {FAILURE}" if failed else ""
    raise UserError(f"no complete run ({RESULT}) in {where}{hint}")


def find_unreadable(*folders: Path | str) -> list[str]:
    """What is wrong with each record in or under the folders that cannot be read; one line each.

    Raises:
        UserError: a folder does not exist, or there is no record in any of them.
    """
    wrong = []
    for run in find_runs(*folders):
        try:
            read_record(run)
        except UserError as error:
            wrong.append(str(error))
    return wrong


def find_failures(*folders: Path | str) -> list[Path]:
    """The folders with ``failure.json`` in or under the folders, sorted; may be none.

    Raises:
        UserError: a folder does not exist.
    """
    return _find(FAILURE, folders)


def _missing_keys(record: Mapping[str, Any]) -> str | None:
    for part, keys in REQUIRED.items():
        if not isinstance(record.get(part), Mapping):
            return part
        for key in keys:
            if key not in record[part]:
                return f"{part}.{key}"
    return None if "seed" in record else "seed"


def _nan(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in metrics.items()}


def _find(name: str, folders: Sequence[Path | str]) -> list[Path]:
    found: dict[Path, Path] = {}
    for folder in folders:
        for path in _walk(Path(folder), name):
            found.setdefault(path.resolve(), path)
    return sorted(found.values())


def _walk(top: Path, name: str) -> Iterator[Path]:
    if not top.is_dir():
        raise UserError(f"{top}: no such folder; give a run's or a sweep's folder")
    for folder, children, files in os.walk(top):
        if name in files:
            yield Path(folder)
        # A run holds no further runs.
        if RESULT in files or FAILURE in files:
            children.clear()
        children[:] = [c for c in children if c not in _NOT_SEARCHED and not c.startswith(".")]
