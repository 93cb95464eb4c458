"""The table of many runs, and its means over seeds and categories."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import write_atomically
from anomalib_rd.results.record import find_runs, read_record, trainer_limits
from anomalib_rd.results.variants import label_order, variant_labels

log = logging.getLogger(__name__)

METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1max",
    "aupro",
    "aupro_5",
    "pro_rd4ad",
)
RUN_COLUMNS = (
    "run",
    "sweep",
    "name",
    "data",
    "fingerprint",
    "category",
    "group",
    "model",
    "teacher",
    "variant",
    "unified",
    "seed",
    "headline",
    "epochs",
    "image_size",
    "train_s",
    "test_s",
    "total_s",
    "train_images_per_s",
    "test_images_per_s",
    "undefined",
    "notes",
    "partial",
)

ORACLE = "oracle_"
GROUPS = {"texture": "textures", "object": "objects"}
MEAN_ALL = "mean all"


def load_runs(folders: Sequence[Path | str]) -> pd.DataFrame:
    """One row for each complete run in or below the folders, by data, variant and path.

    A run of several categories (``unified``) has a row for each category. A warning is logged for
    each record that cannot be read; see `find_unreadable`.

    Columns: `RUN_COLUMNS`, then one for each metric (fraction, NaN if undefined), then
    ``oracle_epoch`` and ``oracle_<metric>`` if a run has an oracle. ``variant`` differs where the
    configs do (see `variant_labels`), ``undefined`` is a dict metric -> reason, ``notes`` a list
    of remarks on the metrics, ``partial`` the limits of a partial run (see `trainer_limits`).

    Raises:
        UserError: no complete run, or none with a readable record.
    """
    records: dict[Path, dict[str, Any]] = {}
    errors: list[UserError] = []
    for path in find_runs(*folders):
        try:
            records[path] = read_record(path)
        except UserError as error:
            errors.append(error)
    if not records:
        raise errors[0]
    for damaged in errors:
        _warn_once(f"omitted: {damaged}")
    labels = variant_labels(list(records.values()))
    rows = [_row(*parts) for parts in zip(records, records.values(), labels, strict=True)]
    # By path alone, variants of an ablation would be sorted by the hash of their config.
    rows.sort(key=lambda row: (row["data"], label_order(row["variant"])))
    keys = list(dict.fromkeys(key for row in rows for key in row))
    metrics = [key for key in keys if key not in RUN_COLUMNS and not key.startswith(ORACLE)]
    metrics.sort(key=lambda name: METRICS.index(name) if name in METRICS else len(METRICS))
    oracle = [key for key in keys if key.startswith(ORACLE)]
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS, *metrics, *oracle])


@cache
def _warn_once(line: str) -> None:
    # Once, although a report, its page and its figures each read the records.
    log.warning("%s", line)


def metric_columns(runs: pd.DataFrame) -> list[str]:
    """Names of the metrics in a table of `load_runs`."""
    return [c for c in runs.columns if c not in RUN_COLUMNS and not c.startswith(ORACLE)]


def drop_repeats(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the last by path of the runs with the same data, variant, category and seed."""
    return runs.drop_duplicates(["data", "variant", "category", "seed"], keep="last")


def category_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations over seeds, in long format.

    One row for each data x variant x category x metric, and rows ``mean textures``,
    ``mean objects`` and ``mean all``: mean over categories for each seed, then mean and std over
    seeds. Mean rows omit seeds with a missing category; if no seed has all categories, they are
    means of the categories' means (``n_seeds`` 0, no std).

    Columns: ``data, variant, kind ("category"|"mean"), group, category, metric, mean, std
    (n - 1; NaN for one seed), n_seeds, n_categories (defined), of_categories``. Values are
    fractions. Repeated runs count once (see `drop_repeats`).
    """
    metrics = metric_columns(runs)
    rows: list[dict[str, Any]] = []
    for (data, variant), part in drop_repeats(runs).groupby(["data", "variant"], sort=False):
        categories, groups, values = _cube(part, metrics)
        for kind, group, label, columns in _row_sets(categories, groups):
            for metric, value in zip(metrics, values, strict=True):
                row = {"data": data, "variant": variant, "kind": kind, "group": group}
                row |= {"category": label, "metric": metric}
                rows.append(row | summarise(value[:, columns]))
    return pd.DataFrame(rows)


def summarise(values: np.ndarray) -> dict[str, float]:
    """Mean over categories for each seed, then mean and std over seeds.

    Args:
        values: (seeds, categories), NaN where undefined or not run.

    Returns:
        ``mean, std, n_seeds, n_categories, of_categories`` as in `category_table`.
    """
    defined = values[:, ~np.isnan(values).all(axis=0)]
    complete = defined[~np.isnan(defined).any(axis=1)]
    counts = {"n_categories": defined.shape[1], "of_categories": values.shape[1]}
    if not defined.shape[1]:
        return {"mean": np.nan, "std": np.nan, "n_seeds": 0, **counts}
    if not len(complete):
        mean = float(np.nanmean(defined, axis=0).mean())
        return {"mean": mean, "std": np.nan, "n_seeds": 0, **counts}
    seeds = complete.mean(axis=1)
    std = float(seeds.std(ddof=1)) if len(seeds) > 1 else np.nan
    return {"mean": float(seeds.mean()), "std": std, "n_seeds": len(seeds), **counts}


def to_long_format(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and metric, with columns ``metric, value``."""
    fixed = [column for column in RUN_COLUMNS if column not in ("undefined", "notes")]
    return runs.melt(fixed, metric_columns(runs), "metric", "value").sort_values(
        "run", kind="stable", ignore_index=True
    )


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write the table atomically as CSV (UTF-8; NaN is an empty field)."""
    text = StringIO()
    table.to_csv(text, index=False)
    return write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def _row(path: Path, record: dict[str, Any], variant: str) -> dict[str, Any]:
    data, model, protocol = record["data"], record["model"], record["protocol"]
    duration, speed = record.get("duration_s") or {}, record.get("images_per_s") or {}
    size, sweep = protocol.get("image_size"), record["config"].get("sweep")
    limits = trainer_limits(record)
    row = {
        "run": str(path),
        "sweep": sweep.get("name") if isinstance(sweep, dict) else sweep,
        "name": record.get("name"),
        "data": data["name"],
        "fingerprint": data.get("fingerprint"),
        "category": data["category"],
        "group": data["group"],
        "model": model["name"],
        "teacher": model["teacher"],
        # A separate variant, so that it is never pooled with complete runs.
        "variant": f"{variant} (part of a run)" if limits else variant,
        "unified": bool((record["config"].get("data") or {}).get("unified")),
        "seed": record["seed"],
        "headline": protocol["headline"],
        "epochs": protocol["epochs"],
        "image_size": "x".join(str(side) for side in size) if size else None,
        "undefined": record.get("undefined") or {},
        "notes": _notes(protocol.get("pixels_judged") or {}),
        "partial": limits,
    }
    row |= {f"{part}_s": duration.get(part, np.nan) for part in ("train", "test", "total")}
    row |= {f"{part}_images_per_s": speed.get(part, np.nan) for part in ("train", "test")}
    row |= record["metrics"]
    return row | {f"{ORACLE}{key}": value for key, value in (record["oracle"] or {}).items()}


def _notes(pixels_judged: Mapping[str, Mapping[str, int]]) -> list[str]:
    parts = [
        f"{defect} ({count['judged']} of {count['of']})"
        for defect, count in pixels_judged.items()
        if count["judged"] < count["of"]
    ]
    note = f"pixel metrics without the images that have no mask: {', '.join(parts)}"
    return [note] if parts else []


def _cube(part: pd.DataFrame, metrics: list[str]) -> tuple[list[str], list[str], np.ndarray]:
    """Categories (textures first), their groups, and values (metrics, seeds, categories)."""
    group_of = dict(zip(part["category"], part["group"], strict=True))
    categories = sorted(group_of, key=lambda name: (group_of[name] != "texture", name))
    seeds = sorted(part["seed"].unique())
    cube = np.full((len(metrics), len(seeds), len(categories)), np.nan)
    rows = [seeds.index(seed) for seed in part["seed"]]
    columns = [categories.index(category) for category in part["category"]]
    cube[:, rows, columns] = part[metrics].to_numpy(dtype=float).T
    return categories, [group_of[name] for name in categories], cube


def _row_sets(
    categories: list[str], groups: list[str]
) -> Iterator[tuple[str, str, str, list[int]]]:
    """Kind, group, label and category indices of each row of a variant's table."""
    for index, (category, group) in enumerate(zip(categories, groups, strict=True)):
        yield "category", group, category, [index]
    for group, plural in GROUPS.items():
        if members := [index for index, other in enumerate(groups) if other == group]:
            yield "mean", group, f"mean {plural}", members
    yield "mean", "all", MEAN_ALL, list(range(len(categories)))
