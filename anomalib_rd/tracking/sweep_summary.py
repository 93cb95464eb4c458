"""The W&B run that summarises a sweep: tables, charts, differences, and a sheet of heatmaps."""

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anomalib_rd.results.record import read_record
from anomalib_rd.results.runs_table import MEAN_ALL, category_table
from anomalib_rd.results.sweeps import count_states, read_states
from anomalib_rd.tracking import keys
from anomalib_rd.tracking.wandb_runs import finish_run, first_line, get_run_id, start_run

if TYPE_CHECKING:
    import wandb

    from anomalib_rd.reports.report import Report

log = logging.getLogger(__name__)

FINGERPRINT = "wandb-summary.txt"
MEAN_COLUMNS = ["data", "variant", "category", "group", "metric", "mean", "std", "n_seeds"]


@dataclass(frozen=True)
class Destination:
    """Where runs are logged in W&B; None: as W&B's environment variables specify."""

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    mode: str | None = None


def find_destination(runs: pd.DataFrame) -> Destination | None:
    """The destination of the first run of `load_runs` that logged to W&B, if any."""
    for run in runs["run"]:
        for spec in (read_record(run)["config"].get("logger") or {}).values():
            if spec.get("_target_") == keys.WANDB_LOGGER:
                fields = ("project", "entity", "group", "mode")
                return Destination(*(spec.get(field) for field in fields))
    return None


def override_destination(
    destination: Destination | None, project: str | None, entity: str | None
) -> Destination | None:
    """The destination with another project or entity; None without destination and project."""
    if destination is None:
        return Destination(project=project, entity=entity) if project else None
    return replace(
        destination,
        project=project or destination.project,
        entity=entity or destination.entity,
    )


def log_sweep(report: "Report", sweep: Path) -> None:
    """Log the summary run of a complete multirun, if its runs logged to W&B.

    Skipped if the numbers have not changed since the last time. Errors become one warning.
    """
    try:
        destination = find_destination(report.runs)
        if destination is None:
            return
        logged = sweep / FINGERPRINT
        if not logged.is_file() or logged.read_text() != _fingerprint(report, sweep):
            log_summary(report, sweep, destination)
    except Exception as error:
        log.warning("W&B: the summary of the sweep was not logged (%s)", first_line(error))


def log_summary(report: "Report", sweep: Path, destination: Destination) -> str | None:
    """Log the summary run of a sweep, or update the one logged before.

    Tables ``sweep/means`` (`category_table`: fractions), ``sweep/categories`` (percent) and
    ``sweep/differences`` (`compare_variants`), charts ``sweep/<metric>`` of the headline metrics,
    the sheet ``sweep/heatmaps``; summary values ``mean/<metric>`` (with several variants
    ``mean/<metric>/<variant>``) and ``runs/<state>``.

    The folder ``sweep`` is for the run's id and, without WANDB_DIR, for W&B's files.

    Returns:
        The run's URL, or its folder if offline; None if W&B is disabled, the upload did not
        finish, or this process is a run of a W&B sweep, with which wandb would merge the summary.
    """
    mode = destination.mode or os.environ.get("WANDB_MODE")
    if mode == "disabled" or os.environ.get("WANDB_SWEEP_ID"):
        return None
    runs = report.runs
    names = runs["sweep"].dropna().unique()
    name = str(names[0]) if len(names) == 1 else sweep.resolve().name
    init = {
        "project": destination.project,
        "entity": destination.entity,
        "group": destination.group or name,
        "mode": mode,
        "job_type": keys.SUMMARY,
        "name": f"{name} summary",
        "tags": [keys.SUMMARY, *runs["data"].unique()],
        "config": {
            "sweep": name,
            "variants": list(runs["variant"].unique()),
            "seeds": sorted(map(int, runs["seed"].unique())),
        },
        "dir": os.environ.get("WANDB_DIR") or str(sweep),
        "id": get_run_id(sweep, resume=True),
        "resume": "allow",
    }
    run = start_run({key: value for key, value in init.items() if value is not None})
    location = str(Path(run.dir).parent) if run.offline else str(run.url)
    failed = True
    try:
        means = category_table(runs)
        run.log(_media(report, means))
        run.summary.update(_summary_values(means))
        states = count_states(read_states(sweep))
        run.summary.update({keys.runs(state): count for state, count in states.items()})
        failed = False
    finally:
        uploaded = finish_run(run, failed)
    if not uploaded:
        return None
    (sweep / FINGERPRINT).write_text(_fingerprint(report, sweep))
    return location


def percent_by_category(means: pd.DataFrame) -> pd.DataFrame:
    """Headline metrics of `category_table` in percent: categories x variants and metrics."""
    headline = means[means["metric"].isin(keys.HEADLINE)]
    wide = headline.assign(percent=100 * headline["mean"]).pivot(
        index=["data", "category"], columns=["variant", "metric"], values="percent"
    )
    rows = headline[["data", "category"]].drop_duplicates()
    columns = [(v, m) for v in headline["variant"].unique() for m in keys.HEADLINE]
    wide = wide.reindex(index=pd.MultiIndex.from_frame(rows), columns=columns)
    wide = wide.dropna(axis="columns", how="all")
    wide.columns = pd.Index([" ".join(column) for column in wide.columns.to_flat_index()])
    return wide.reset_index()


def _media(report: "Report", means: pd.DataFrame) -> dict[str, Any]:
    import wandb

    from anomalib_rd.reports.report import COMPARISONS, SHEET

    media: dict[str, Any] = {
        keys.MEANS: _table(means[MEAN_COLUMNS]),
        keys.CATEGORIES: _table(percent_by_category(means)),
    }
    for metric in keys.HEADLINE:
        defined = means[(means["metric"] == metric) & means["mean"].notna()]
        if len(defined):
            media[keys.bars(metric)] = _bars(defined, metric)
    files = {path.name: path for path in report.files}
    if COMPARISONS in files:
        media[keys.DIFFERENCES] = _table(pd.read_csv(files[COMPARISONS]))
    if SHEET in files:
        media[keys.HEATMAPS] = wandb.Image(str(files[SHEET]))
    return media


def _table(frame: pd.DataFrame) -> "wandb.Table":
    import wandb

    # JSON has neither NaN nor infinity; they become blanks.
    cells = frame.replace([np.inf, -np.inf], np.nan).astype(object)
    rows: list[Any] = cells.where(cells.notna(), None).to_numpy().tolist()
    return wandb.Table(columns=list(frame.columns), data=rows)


def _bars(means: pd.DataFrame, metric: str) -> Any:
    import wandb

    bars = means.assign(percent=100 * means["mean"], bar=means["category"])
    for column in _varying(means):
        bars["bar"] = bars["bar"] + " | " + bars[column]
    bars = bars[["bar", "percent"]].sort_values("bar", kind="stable")
    return wandb.plot.bar(_table(bars), "bar", "percent", title=f"{metric}, %")


def _summary_values(means: pd.DataFrame) -> dict[str, float]:
    varying = _varying(means)
    over_all = means[(means["category"] == MEAN_ALL) & means["mean"].notna()]
    return {
        keys.mean(row["metric"], " ".join(str(row[column]) for column in varying)): row["mean"]
        for row in over_all.to_dict("records")
    }


def _varying(means: pd.DataFrame) -> list[str]:
    return [column for column in ("data", "variant") if means[column].nunique() > 1]


def _fingerprint(report: "Report", sweep: Path) -> str:
    """Hash of the numbers and of the states of the runs."""
    digest = hashlib.sha256(repr(count_states(read_states(sweep))).encode())
    for path in report.files:
        if path.suffix == ".csv":
            digest.update(path.read_bytes())
    return digest.hexdigest()
