"""Multiruns: their jobs, the checks before they start, the report at the end."""

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from anomalib_rd.cli.errors import explain
from anomalib_rd.cli.override_checks import check_config
from anomalib_rd.cli.overrides import POINT, quote_overrides
from anomalib_rd.cli.report import write_report_page
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import read_json
from anomalib_rd.results.identity import (
    RESUME_HINT,
    config_digest,
    require_same_run,
    require_same_teacher,
    weights_file_sha256,
)
from anomalib_rd.results.record import RESULT, trainer_limits

log = logging.getLogger(__name__)

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
# W&B's variables that name or resume one run.
SINGLE_RUN_VARIABLES = (
    *("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM"),
)
VALUE_ONLY = ("data.category", "model")
"""Keys that a label omits, because their values are clear."""


@dataclass(frozen=True)
class Job:
    """One job of a multirun.

    Attributes:
        folder: relative to the sweep's.
        overrides: of its config.
        digest: of its config.
        complete: whether its folder holds the finished run.
        config: as the job will receive it.
        changed: whether the images of the finished run have changed on disk.
    """

    folder: str
    overrides: list[str]
    digest: str
    complete: bool
    config: DictConfig
    changed: bool = False


class SweepCallback(Callback):
    """Lists the jobs of a multirun at its start, logs the start of each, and reports at the end.

    Attributes:
        sweep: name of the multirun of this process, or None.
        folder: of the multirun, or None.
    """

    sweep: ClassVar[str | None] = None
    folder: ClassVar[str | None] = None

    def __init__(self) -> None:
        self.runs: list[str] | None = None
        self.labels: list[str] = []
        self.shared_overrides: list[str] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra in the launching process, before it makes the jobs."""
        SweepCallback.sweep = str(config.sweep)
        SweepCallback.folder = str(config.hydra.sweep.dir)
        folder = Path(config.hydra.sweep.dir)
        try:
            jobs = self._prepare(config, folder)
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            # Hydra would only warn and continue.
            print(f"anomalib-rd: {line}", file=sys.stderr)
            raise SystemExit(2) from error
        if jobs and all(job.complete for job in jobs):
            print(f"anomalib-rd: all {len(jobs)} runs of {folder} are complete: nothing to run")
            self.on_multirun_end(config)
            raise SystemExit(0)
        _go_offline_without_login(config, folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra in the process that runs the job."""
        from hydra.types import RunMode

        if config.hydra.mode != RunMode.MULTIRUN:
            return
        if self.runs is not None:
            index = self.runs.index(str(config.hydra.sweep.subdir))
            log.info("[%d/%d] %s", index + 1, len(self.runs), self.labels[index])
            return
        # In a search only the sweeper may know the number of jobs.
        trials = config.hydra.sweeper.get("n_trials")
        number = f"{config.hydra.job.num + 1}" + (f"/{trials}" if trials else "")
        own = [o for o in config.hydra.overrides.task if o not in self.shared_overrides]
        log.info("[%s] %s", number, label(own))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra after the last job; exits with status 1 if a job failed.

        Raises:
            SystemExit: 1: a job failed; 2: the report could not be written.
        """
        from anomalib_rd.reports.report import print_report, read_report, write_report
        from anomalib_rd.results.sweeps import find_started_runs, read_state
        from anomalib_rd.tracking.sweep_summary import log_sweep

        folder = Path(config.hydra.sweep.dir)
        runs = find_started_runs(folder) if self.runs is None else self.runs
        states = [read_state(folder, run) for run in runs]
        # Another process with the same command may be running some. The runs of a search that
        # were interrupted may belong to an earlier call.
        fine = {"done", "partial", "running", *(["interrupted"] if self.runs is None else [])}
        failed = [state for state in states if state.state not in fine]
        report, page, report_error = None, "", None
        try:
            report = read_report([folder])
            write_report(report, folder)
            page = write_report_page(folder) if config.report.html else ""
            log_sweep(report, folder)
        except (UserError, OSError) as error:
            report_error = error
        if report is not None:
            print_report(report)
            if page:
                print(page)
        if report_error is not None:
            print(f"anomalib-rd: {explain(report_error) or report_error}", file=sys.stderr)
            # Without a complete run there is no report: not another error.
            if not failed and any(state.state in ("done", "partial") for state in states):
                raise SystemExit(2) from report_error
        if failed:
            print(f"anomalib-rd: {len(failed)} of {len(states)} runs failed:", file=sys.stderr)
            for state in failed:
                reason = state.reason or "the process ended without an error message"
                print(f"  {state.run}: {reason}", file=sys.stderr)
            raise SystemExit(1)

    def _prepare(self, config: DictConfig, folder: Path) -> list[Job] | None:
        """Check the jobs and write their list; returns them, or None for a search."""
        from anomalib_rd.results.provenance import command_line, mask_arguments
        from anomalib_rd.results.sweeps import add_jobs, find_started_runs
        from anomalib_rd.training.config_checks import check_model_selection

        ignored = [name for name in SINGLE_RUN_VARIABLES if os.environ.pop(name, None)]
        if ignored:
            names = ", ".join(ignored)
            print(
                f"anomalib-rd: {names} ignored: each run of a multirun has its own", file=sys.stderr
            )
        check_config(config)
        if config.hydra.sweeper.get("params"):
            with read_write(config.hydra.sweeper), open_dict(config.hydra.sweeper):
                config.hydra.sweeper.params = _quoted_params(config)
        if config.optimized_metric is not None:
            # Later the sweeper would report a trial without a value, but not the reason.
            check_model_selection(config)
        self.shared_overrides = list(config.hydra.overrides.task)
        local = _runs_locally(config.hydra.launcher)

        def require_first_data(job: Job) -> None:
            if local and not job.complete:
                _find_categories(job.config.data)

        # Composing many jobs takes a minute: report a missing data set before.
        jobs = list_jobs(config, require_first_data)
        if jobs is None:
            return None
        _require_own_ids(jobs)
        if local:
            _require_data(jobs)
        self.runs = [job.folder for job in jobs]
        overrides = {job.folder: mask_arguments(job.overrides) for job in jobs}
        self.labels = labels(overrides)
        others = set(find_started_runs(folder)) - set(self.runs)
        if others:
            print(f"anomalib-rd: {folder} also contains {len(others)} runs of other configs")
        changed = [job.folder for job in jobs if job.changed]
        if changed:
            print(f"anomalib-rd: {changed_data_warning(folder, changed)}", file=sys.stderr)
        add_jobs(folder, command_line(["anomalib-rd", "train", *sys.argv[1:]]), overrides)
        return jobs


def list_jobs(config: DictConfig, first: Callable[[Job], None] | None = None) -> list[Job] | None:
    """The jobs that Hydra is about to launch, with their folders and configs.

    Args:
        config: of the multirun, including Hydra's own part.
        first: called with the first job, before the others are composed.

    Returns:
        One job for each folder; None for a search, whose jobs are not known in advance.

    Raises:
        UserError: two jobs with the same folder, or a folder that holds a run of another config.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from rich.console import Console
    from rich.progress import track

    if config.optimized_metric is not None or config.hydra.sweeper._target_ != BASIC_SWEEPER:
        return None
    sweep = Path(config.hydra.sweep.dir)
    loader = GlobalHydra.instance().config_loader()
    # Unresolved: the job resolves interpolations.
    typed: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    overrides = [*(f"{key}={value}" for key, value in _quoted_params(config).items()), *typed]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    jobs: dict[str, Job] = {}
    # Hydra composes ten jobs a second.
    quiet = len(batch) < 30 or not sys.stderr.isatty()
    bar = track(batch, "composing the jobs", console=Console(stderr=True), disable=quiet)
    for number, job_overrides in enumerate(bar):
        composed = loader.load_sweep_config(config, list(job_overrides))
        with _launched_job(composed, number) as (folder, task):
            check_config(task)
            complete = is_complete_run(sweep / folder, task)
            changed = complete and data_changed(sweep / folder, task)
            job = Job(folder, job_overrides, config_digest(task), complete, task, changed)
            if first is not None and not jobs:
                first(job)
        if job.digest != jobs.setdefault(folder, job).digest:
            raise UserError(
                f"{sweep / folder}: two jobs would share this folder ({' '.join(job.overrides)} "
                f"and {' '.join(jobs[folder].overrides)}); do not set hydra.sweep.subdir"
            )
    return list(jobs.values())


@contextmanager
def _launched_job(config: DictConfig, number: int) -> Iterator[tuple[str, DictConfig]]:
    """The job's folder relative to the sweep's, and its config as the job will receive it.

    The config can be resolved inside the block, where Hydra's values are set.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra: Any = HydraConfig.instance()
    before = hydra.cfg
    try:
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        hydra.set_config(config)
        folder = str(config.hydra.sweep.subdir)
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(Path(config.hydra.sweep.dir, folder).absolute())
        hydra.set_config(config)
        with read_write(config), open_dict(config):
            del config["hydra"]
        yield folder, config
    finally:
        hydra.cfg = before


def _quoted_params(config: DictConfig) -> dict[str, Any]:
    """The sweep's values in a config, quoted as on the command line."""
    params = config.hydra.sweeper.get("params") or {}
    quoted: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, str):
            key, _, value = quote_overrides([f"{key}={value}"], multirun=True)[0].partition("=")
        elif key == POINT:
            value = ",".join(value)
        quoted[str(key)] = value
    return quoted


def _require_data(jobs: list[Job]) -> None:
    """Check that images are found, before every job fails for the same reason.

    Raises:
        UserError: a missing data set or category, or no category has readable folders.
    """
    errors: dict[tuple[str, str], UserError | None] = {}
    for job in jobs:
        if job.complete:
            continue
        spec = OmegaConf.to_container(job.config.data.source, resolve=True)
        data_set = json.dumps(spec, sort_keys=True, default=str)
        source, categories = _find_categories(job.config.data)
        for category in categories:
            if (data_set, category) in errors:
                continue
            errors[data_set, category] = None
            try:
                source.split(category)
            except UserError as error:
                errors[data_set, category] = error
    found = [error for error in errors.values() if error is not None]
    if found and len(found) == len(errors):
        raise found[0]


def _find_categories(data: DictConfig) -> tuple[Any, list[str]]:
    """A job's data set, and the categories that it trains on.

    Raises:
        UserError: a missing data set or category.
    """
    from hydra.utils import instantiate

    from anomalib_rd.data.sources.source import select_run_categories

    source = instantiate(data.source)
    return source, select_run_categories(source, data.category, data.unified)


def _require_own_ids(jobs: list[Job]) -> None:
    """Refuse one W&B id for several runs, which would overwrite each other."""
    for job in jobs if len(jobs) > 1 else []:
        for name, spec in (job.config.logger or {}).items():
            if spec.get("id") is not None:
                raise UserError(
                    f"logger.{name}.id={spec.id}: {len(jobs)} runs with one id would overwrite "
                    "each other; omit it"
                )


def is_complete_run(folder: Path, cfg: DictConfig) -> bool:
    """Whether a folder holds the finished run of a config, not a partial one.

    Raises:
        UserError: it holds a run of another config or teacher.
    """
    if not (folder / RESULT).is_file():
        return False
    try:
        record = read_json(folder / RESULT)
    except UserError as error:
        log.warning("%s; repeating the run", error)
        return False
    require_same_run(folder, cfg, record.get("config") or {}, record.get("config_digest"))
    if trainer_limits(record):
        return False
    model, spec = record.get("model") or {}, cfg.model.teacher
    # Only if the file of the weights has changed: this needs torch.
    weights_sha256 = weights_file_sha256(spec)
    if weights_sha256 is not None and model.get("weights_sha256") not in (None, weights_sha256):
        from anomalib_rd.components import build
        from anomalib_rd.networks.teacher import state_sha256

        require_same_teacher(
            folder / RESULT,
            model.get("teacher_sha256"),
            state_sha256(build(spec, "model.teacher")),
            record["config"]["model"]["teacher"],
            spec,
            RESUME_HINT,
        )
    return True


def data_changed(folder: Path, cfg: DictConfig) -> bool:
    """Whether the images of a finished run have changed; False if they cannot be read."""
    recorded = (read_json(folder / RESULT).get("data") or {}).get("fingerprint")
    source: Any = OmegaConf.to_container(cfg.data.source, resolve=True)
    wanted: Any = OmegaConf.to_container(OmegaConf.create({"category": cfg.data.category}))
    text = json.dumps([source, wanted["category"], bool(cfg.data.get("unified", False))])
    current = current_fingerprint(text)
    return None not in (current, recorded) and current != recorded


@cache
def current_fingerprint(data: str) -> str | None:
    """The fingerprint of images on disk, computed once per process; None if they are unreadable.

    Args:
        data: ``[source, category, unified]`` of the config, as JSON.
    """
    from anomalib_rd.components import build
    from anomalib_rd.data.fingerprint import dataset_fingerprint
    from anomalib_rd.data.sources.source import Split, select_run_categories

    spec, category, unified = json.loads(data)
    try:
        source = build(spec, "data.source")
        splits = [source.split(name) for name in select_run_categories(source, category, unified)]
        train = [sample for split in splits for sample in split.train]
        test = [sample for split in splits for sample in split.test]
        return dataset_fingerprint(Split(train, test), source.root)
    except Exception as error:  # complete runs are skipped without their images too
        log.debug("images of complete runs not compared: %s", error)
        return None


def changed_data_warning(folder: object, runs: Sequence[str]) -> str:
    """The warning that the images of complete runs have changed.

    Args:
        folder: of the sweep or run.
        runs: of the sweep; empty for a single run.
    """
    subject = f"{len(runs)} complete runs, such as {runs[0]}" if runs else "the complete run"
    return (
        f"{folder}: the images of {subject} have changed since (the data fingerprint differs); "
        "the results are not changed; to train on the current images choose another "
        "folder or delete the run"
    )


def _runs_locally(launcher: DictConfig) -> bool:
    """Whether the jobs run on this machine and find the same images."""
    address = OmegaConf.select(launcher, "ray.init.address", default="local")
    return address == "local" and not str(launcher._target_).endswith("SlurmLauncher")


def labels(jobs: Mapping[str, Sequence[str]]) -> list[str]:
    """A label for each job: the overrides that not all jobs share, or its folder.

    Args:
        jobs: folder -> overrides.
    """
    shared = set.intersection(*map(set, jobs.values())) if len(jobs) > 1 else set()
    return [
        label([o for o in overrides if o not in shared]) or run for run, overrides in jobs.items()
    ]


def label(overrides: Sequence[str]) -> str:
    """``["data.category=bottle", "model=rd4ad", "seed=1"]`` -> ``bottle rd4ad seed=1``."""
    pairs = [override.partition("=") for override in overrides]
    # Category and model first, as in a run's name.
    pairs.sort(key=lambda pair: [*VALUE_ONLY, pair[0]].index(pair[0]))
    return " ".join(value if key in VALUE_ONLY else f"{key}={value}" for key, _, value in pairs)


def _go_offline_without_login(config: DictConfig, folder: Path) -> None:
    """Without a W&B login set offline mode for all jobs, and print one message."""
    from anomalib_rd.tracking.keys import WANDB_LOGGER

    loggers = [spec for spec in config.logger.values() if spec and "_target_" in spec]
    if not any(spec._target_ == WANDB_LOGGER and not spec.get("mode") for spec in loggers):
        return
    from anomalib_rd.tracking.wandb_runs import is_login_missing

    if is_login_missing():
        os.environ["WANDB_MODE"] = "offline"  # inherited by the processes of the jobs
        wandb_dir = os.environ.get("WANDB_DIR")
        # The files of the summary run are in the sweep's own folder.
        pattern = "wandb" if wandb_dir else "{,*/*/}wandb"
        files = Path(shlex.quote(wandb_dir or str(folder)), pattern)
        print(
            f"anomalib-rd: W&B: no login found: offline; `wandb sync {files}/offline-run-*` uploads"
        )
