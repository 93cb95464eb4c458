"""One W&B run that sums up a sweep: tables, charts, differences, the sheet of heatmaps."""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anomalib_rd.results.record import read_record
from anomalib_rd.results.sweeps import State, count_states, read_states
from anomalib_rd.results.table import MEAN_ALL, category_table
from anomalib_rd.tracking import keys
from anomalib_rd.tracking.wandb_logger import finish_run, first_line, get_run_id, start_run

if TYPE_CHECKING:
    import wandb

    from anomalib_rd.reports.report import Report

log = logging.getLogger(__name__)

LOGGED = "wandb-summary.txt"
LONG = ["data", "variant", "category", "group", "metric", "mean", "std", "n_seeds"]


@dataclass(frozen=True)
class Destination:
    """Where the runs of a sweep are in W&B; None leaves it to W&B's environment."""

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    mode: str | None = None


def find_destination(runs: pd.DataFrame) -> Destination | None:
    """Where the first of the runs that logged to W&B did; None if none has.

    Args:
        runs: of `load_runs`.
    """
    for run in runs["run"]:
        for spec in (read_record(run)["config"].get("logger") or {}).values():
            if spec.get("_target_") == keys.WANDB_LOGGER:
                return Destination(
                    *(spec.get(key) for key in ("project", "entity", "group", "mode"))
                )
    return None


def override_destination(
    place: Destination | None, project: str | None, entity: str | None
) -> Destination | None:
    """The place with another project or entity; None where there is none and no project said."""
    if place is None:
        return Destination(project=project, entity=entity) if project else None
    return replace(place, project=project or place.project, entity=entity or place.entity)


def log_sweep(made: "Report", sweep: Path) -> None:
    """Log the summary run of a multirun that is over, if its runs logged to W&B.

    Nothing is done where the last time gave the same numbers. What goes wrong is one warning.
    """
    try:
        place = find_destination(made.runs)
        if place is not None and not _is_logged(made, sweep):
            log_summary(made, sweep, place)
    except Exception as error:
        log.warning("W&B: the sweep is not summed up there (%s)", first_line(error))


def log_summary(made: "Report", sweep: Path, place: Destination) -> str | None:
    """Log the summary run of a sweep; logged before, the same run is brought up to date.

    Tables ``sweep/means`` (`category_table`: fractions), ``sweep/categories`` (to be read:
    percent) and ``sweep/differences`` (`compare_variants`), charts ``sweep/<metric>`` of the
    headline metrics, the sheet ``sweep/heatmaps``; summary values ``mean/<metric>`` (with
    several variants ``mean/<metric>/<variant>``) and ``runs/<state>``.

    Args:
        made: the sweep's report.
        sweep: its folder; keeps the run's id and, without WANDB_DIR, W&B's files.
        place: where the runs are.

    Returns:
        The run's address, or offline its folder; None if W&B is disabled, the upload was not
        finished, or this is a run of a W&B sweep, into which wandb would merge it.
    """
    mode = place.mode or os.environ.get("WANDB_MODE")
    if mode == "disabled" or os.environ.get("WANDB_SWEEP_ID"):
        return None
    names = made.runs["sweep"].dropna().unique()
    name = str(names[0]) if len(names) == 1 else sweep.resolve().name
    init = {
        "project": place.project,
        "entity": place.entity,
        "group": place.group or name,
        "mode": mode,
        "job_type": keys.SUMMARY,
        "name": f"{name} summary",
        "tags": [keys.SUMMARY, *made.runs["data"].unique()],
        "config": _config(made.runs, name),
        "dir": os.environ.get("WANDB_DIR") or str(sweep),
        "id": get_run_id(sweep, again=True),
        "resume": "allow",
    }
    run = start_run({key: value for key, value in init.items() if value is not None})
    place_now = str(Path(run.dir).parent) if run.offline else str(run.url)
    failed = True
    try:
        means = category_table(made.runs)
        run.log(_media(made, means))
        run.summary.update(_numbers(means, count_states(read_states(sweep))))
        failed = False
    finally:
        whole = finish_run(run, failed)
    if not whole:
        return None
    (sweep / LOGGED).write_text(_fingerprint(made, sweep))
    return place_now


def by_category(means: pd.DataFrame) -> pd.DataFrame:
    """The headline metrics in percent: a row for each category and mean, a column for each
    variant and metric.

    Args:
        means: of `category_table`.
    """
    shown = means[means["metric"].isin(keys.HEADLINE)]
    wide = shown.assign(percent=100 * shown["mean"]).pivot(
        index=["data", "category"], columns=["variant", "metric"], values="percent"
    )
    rows = shown[["data", "category"]].drop_duplicates()
    columns = [(v, m) for v in shown["variant"].unique() for m in keys.HEADLINE]
    wide = wide.reindex(index=pd.MultiIndex.from_frame(rows), columns=columns)
    wide = wide.dropna(axis="columns", how="all")
    wide.columns = pd.Index([" ".join(column) for column in wide.columns.to_flat_index()])
    return wide.reset_index()


def _media(made: "Report", means: pd.DataFrame) -> dict[str, Any]:
    import wandb

    from anomalib_rd.reports.report import COMPARISONS, SHEET

    media: dict[str, Any] = {
        keys.MEANS: _table(means[LONG]),
        keys.CATEGORIES: _table(by_category(means)),
    }
    for metric in keys.HEADLINE:
        chosen = means[(means["metric"] == metric) & means["mean"].notna()]
        if len(chosen):
            media[keys.bars(metric)] = _bars(chosen, metric)
    files = {path.name: path for path in made.files}
    if COMPARISONS in files:
        media[keys.DIFFERENCES] = _table(pd.read_csv(files[COMPARISONS]))
    if SHEET in files:
        media[keys.HEATMAPS] = wandb.Image(str(files[SHEET]))
    return media


def _table(frame: pd.DataFrame) -> "wandb.Table":
    import wandb

    # NaN and infinity are no JSON: a missing value shows as a blank.
    cells = frame.replace([np.inf, -np.inf], np.nan).astype(object)
    rows: list[Any] = cells.where(cells.notna(), None).to_numpy().tolist()
    return wandb.Table(columns=list(frame.columns), data=rows)


def _bars(means: pd.DataFrame, metric: str) -> Any:
    """The bars of one category stand together."""
    import wandb

    bars = means.assign(percent=100 * means["mean"], bar=means["category"])
    for column in ("data", "variant"):
        if means[column].nunique() > 1:
            bars["bar"] = bars["bar"] + " | " + bars[column]
    bars = bars[["bar", "percent"]].sort_values("bar", kind="stable")
    return wandb.plot.bar(_table(bars), "bar", "percent", title=f"{metric}, %")


def _numbers(means: pd.DataFrame, runs: Mapping[State, int]) -> dict[str, float]:
    chosen = means[(means["category"] == MEAN_ALL) & means["mean"].notna()]
    many = [column for column in ("data", "variant") if means[column].nunique() > 1]
    numbers: dict[str, float] = {
        keys.mean(row["metric"], " ".join(str(row[column]) for column in many)): row["mean"]
        for _, row in chosen.iterrows()
    }
    return numbers | {keys.runs(state): number for state, number in runs.items()}


def _config(runs: pd.DataFrame, name: str) -> dict[str, Any]:
    return {
        "sweep": name,
        "variants": list(runs["variant"].unique()),
        "seeds": sorted(map(int, runs["seed"].unique())),
    }


def _is_logged(made: "Report", sweep: Path) -> bool:
    path = sweep / LOGGED
    return path.is_file() and path.read_text() == _fingerprint(made, sweep)


def _fingerprint(made: "Report", sweep: Path) -> str:
    """Changes with the numbers, and with the state of a run."""
    digest = hashlib.sha256(repr(count_states(read_states(sweep))).encode())
    for path in made.files:
        if path.suffix == ".csv":
            digest.update(path.read_bytes())
    return digest.hexdigest()
