"""Multiruns: their jobs, and what happens at their start and end."""

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from anomalib_rd.cli.errors import explain
from anomalib_rd.cli.report import write_report_page
from anomalib_rd.cli.values import require_texts
from anomalib_rd.cli.words import as_typed
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

LISTED = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Job:
    """One job of a multirun.

    Attributes:
        folder: below the sweep's.
        overrides: what the job's config is composed from.
        digest: of its config.
        complete: whether its folder holds the finished run.
        config: as the job will see it.
        changed: whether that run's images are not those on disk any more.
    """

    folder: str
    overrides: list[str]
    digest: str
    complete: bool
    config: DictConfig
    changed: bool = False


def list_jobs(config: DictConfig, first: Callable[[Job], None] | None = None) -> list[Job] | None:
    """The jobs that Hydra is about to launch, as it will name and compose them.

    Args:
        config: of the multirun, Hydra's own part included.
        first: called with the first job, before the others are composed.

    Returns:
        One job for each folder; None for a search, whose jobs nobody knows in advance.

    Raises:
        UserError: two jobs with the same folder, or a folder that holds another config's run.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if config.optimized_metric is not None or config.hydra.sweeper._target_ != LISTED:
        return None
    sweep = Path(config.hydra.sweep.dir)
    loader = GlobalHydra.instance().config_loader()
    words = [f"{key}={value}" for key, value in params_as_typed(config).items()]
    # As typed: an interpolation among them is the job's to resolve.
    task: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    words += task
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    jobs: dict[str, Job] = {}
    # Hydra takes 0.1 s to compose a job's config: half a minute for some hundred.
    for number, overrides in enumerate(tracked(batch)):
        composed = loader.load_sweep_config(config, list(overrides))
        with as_launched(composed, number) as (folder, task):
            require_texts(task)
            complete = is_complete_run(sweep / folder, task)
            changed = complete and data_changed(sweep / folder, task)
            job = Job(folder, overrides, config_digest(task), complete, task, changed)
            if first is not None and not jobs:
                first(job)
        if job.digest != jobs.setdefault(folder, job).digest:
            raise UserError(
                f"{sweep / folder}: two jobs would share this folder ({' '.join(overrides)} and "
                f"{' '.join(jobs[folder].overrides)}); leave hydra.sweep.subdir as it is"
            )
    return list(jobs.values())


def params_as_typed(config: DictConfig) -> dict[str, Any]:
    """What a config sweeps over, with names and paths quoted as on the command line."""
    params = config.hydra.sweeper.get("params") or {}
    typed: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, str):
            key, _, value = as_typed([f"{key}={value}"], many=True)[0].partition("=")
        elif key == "point":
            value = ",".join(value)
        typed[str(key)] = value
    return typed


def require_data(jobs: list[Job]) -> None:
    """Look for the images of all jobs, before each of them would miss the same ones.

    Raises:
        UserError: a data set or category that is not there, or none whose images can be listed.
    """
    sources: dict[str, Any] = {}
    tried: dict[str, UserError | None] = {}
    for job in jobs:
        if job.complete:
            continue
        config = OmegaConf.to_container(job.config.data, resolve=True)
        assert isinstance(config, dict)
        place = json.dumps(config["source"], sort_keys=True, default=str)
        sources[place], categories = categories_found(job, sources.get(place))
        for category in categories:
            if f"{place} {category}" not in tried:
                tried[f"{place} {category}"] = error_of(sources[place], category)
    errors = [error for error in tried.values() if error is not None]
    if errors and len(errors) == len(tried):
        raise errors[0]


def categories_found(job: Job, source: Any = None) -> tuple[Any, list[str]]:
    """A job's data set, and the categories that it trains on.

    Args:
        job: of the multirun.
        source: its data set, if it is there already.

    Raises:
        UserError: a data set or category that is not there.
    """
    from hydra.utils import instantiate

    from anomalib_rd.data.sources.source import select_run_categories

    data = job.config.data
    source = source or instantiate(data.source)
    return source, select_run_categories(source, data.category, data.unified)


def error_of(source: Any, category: str) -> UserError | None:
    """What is wrong with the images of a category; None if they can be listed."""
    try:
        source.split(category)
    except UserError as error:
        return error
    return None


def require_own_ids(jobs: list[Job]) -> None:
    """Refuse one W&B id for several runs: they would overwrite each other.

    Raises:
        UserError: naming the key.
    """
    for job in jobs if len(jobs) > 1 else []:
        for name, spec in (job.config.logger or {}).items():
            if spec.get("id") is not None:
                raise UserError(
                    f"logger.{name}.id={spec.id}: one id for {len(jobs)} runs, which would "
                    "overwrite each other; leave it out"
                )


def tracked(batch: list[list[str]]) -> Iterable[list[str]]:
    """The jobs, with a progress bar on a terminal where they are many."""
    from rich.console import Console
    from rich.progress import track

    quiet = len(batch) < 30 or not sys.stderr.isatty()
    return track(batch, "looking at the jobs", console=Console(stderr=True), disable=quiet)


def is_complete_run(folder: Path, cfg: DictConfig) -> bool:
    """Whether a folder holds the finished run of a config, and all of it: see ``protocol.partial``.

    Raises:
        UserError: it holds another config's, or one of another teacher.
    """
    if not (folder / RESULT).is_file():
        return False
    try:
        record = read_json(folder / RESULT)
    except UserError as error:
        log.warning("%s; it is run again", error)
        return False
    require_same_run(folder, cfg, record.get("config") or {}, record.get("config_digest"))
    if trainer_limits(record):
        return False
    require_same_weights(folder, cfg, record)
    return True


def data_changed(folder: Path, cfg: DictConfig) -> bool:
    """Whether the images of a finished run are others now; False where they can't be read."""
    data = read_json(folder / RESULT).get("data") or {}
    source: Any = OmegaConf.to_container(cfg.data.source, resolve=True)
    wanted: Any = OmegaConf.to_container(OmegaConf.create({"category": cfg.data.category}))
    text = json.dumps([source, wanted["category"], bool(cfg.data.get("unified", False))])
    now = fingerprint_now(text)
    return None not in (now, data.get("fingerprint")) and now != data["fingerprint"]


@cache
def fingerprint_now(data: str) -> str | None:
    """The fingerprint of images on disk, read once a process; None where they can't be read.

    Args:
        data: ``[source, category, unified]`` of the config, as JSON.
    """
    from anomalib_rd.components import build
    from anomalib_rd.data.fingerprint import dataset_fingerprint
    from anomalib_rd.data.sources.source import Split, select_run_categories

    settings, category, unified = json.loads(data)
    try:
        source = build(settings, "data.source")
        names = select_run_categories(source, category, unified)
        splits = [source.split(name) for name in names]
        train = [sample for split in splits for sample in split.train]
        test = [sample for split in splits for sample in split.test]
        return dataset_fingerprint(Split(train, test), source.root)
    # The runs are complete: without the images they are skipped as well.
    except Exception as error:
        log.debug("images of complete runs not compared: %s", error)
        return None


def changed_line(place: object, runs: Sequence[str]) -> str:
    """What to say of complete runs whose images are others now.

    Args:
        place: the sweep or the run.
        runs: those of the sweep, none of a single run.
    """
    which = (
        f"{len(runs)} of the complete runs, such as {runs[0]}, are"
        if runs
        else "the complete run is"
    )
    return (
        f"{place}: {which} of other images than there are now (the data fingerprint differs) and"
        " kept; to train on the images as they are now, take another folder or remove the run"
    )


def require_same_weights(folder: Path, cfg: DictConfig, record: dict[str, Any]) -> None:
    """Refuse a finished run if the file of its teacher's weights has changed since.

    Only where the file is another one its state is looked at, which needs torch.

    Raises:
        UserError: the teacher is another one.
    """
    kept, spec = record.get("model") or {}, cfg.model.teacher
    here = weights_file_sha256(spec)
    if here is None or kept.get("weights_sha256") in (None, here):
        return
    from anomalib_rd.components import build
    from anomalib_rd.networks.teacher import state_sha256

    require_same_teacher(
        folder / RESULT,
        kept.get("teacher_sha256"),
        state_sha256(build(spec, "model.teacher")),
        record["config"]["model"]["teacher"],
        spec,
        RESUME_HINT,
    )


@contextmanager
def as_launched(config: DictConfig, number: int) -> Iterator[tuple[str, DictConfig]]:
    """A job's folder below the sweep's, and its config as the job will see it.

    The config can be resolved inside the block, where Hydra's own values are known.
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


# Variables of W&B that name or continue one run.
ONE_RUN = ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM")
# Keys whose values say enough by themselves.
BARE = ("data.category", "model")


class SweepCallback(Callback):
    """Keeps the list of jobs and says which one starts; prints the table at the end.

    Exits with status 1 if a job failed.

    Attributes:
        sweep: the name of the multirun of this process, None outside of one.
        folder: the multirun's folder, None outside of one.
    """

    sweep: ClassVar[str | None] = None
    folder: ClassVar[str | None] = None

    def __init__(self) -> None:
        self.runs: list[str] | None = None
        self.labels: list[str] = []
        self.typed: list[str] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra before it makes the jobs, in the process that launches them."""
        SweepCallback.sweep = str(config.sweep)
        SweepCallback.folder = str(config.hydra.sweep.dir)
        folder = Path(config.hydra.sweep.dir)
        try:
            complete = self._prepare(config, folder)
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            # Hydra would make a warning of it and go on.
            print(f"anomalib-rd: {line}", file=sys.stderr)
            raise SystemExit(2) from error
        if complete:
            print(f"anomalib-rd: all {complete} runs of {folder} are complete: nothing to run")
            self.on_multirun_end(config)
            raise SystemExit(0)
        go_offline_without_login(config, folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra in the process that runs the job."""
        from hydra.types import RunMode

        if config.hydra.mode != RunMode.MULTIRUN:
            return
        if self.runs is not None:
            at = self.runs.index(str(config.hydra.sweep.subdir))
            log.info("[%d/%d] %s", at + 1, len(self.runs), self.labels[at])
            return
        # A search: how many there will be, only its sweeper may know.
        trials = config.hydra.sweeper.get("n_trials")
        number = f"{config.hydra.job.num + 1}" + (f"/{trials}" if trials else "")
        words = [word for word in config.hydra.overrides.task if word not in self.typed]
        log.info("[%s] %s", number, label(words))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra after the last job, in the process that launched them."""
        from anomalib_rd.reports.report import print_report, read_report, write_report
        from anomalib_rd.results.sweeps import find_started_runs, read_state
        from anomalib_rd.tracking.sweep_summary import log_sweep

        folder = Path(config.hydra.sweep.dir)
        runs = find_started_runs(folder) if self.runs is None else self.runs
        states = [read_state(folder, run) for run in runs]
        # Another process may have taken some up, with the same command; of a search's runs
        # only those that failed are known to be wrong.
        fine = {"done", "partial", "running"} | (
            set() if self.runs is not None else {"interrupted"}
        )
        wrong = [state for state in states if state.state not in fine]
        made, page, hindrance = None, "", None
        try:
            made = read_report([folder])
            write_report(made, folder)
            page = write_report_page(folder) if config.report.html else ""
            log_sweep(made, folder)
        except (UserError, OSError) as error:
            hindrance = error
        if made is not None:
            print_report(made)
            print(page, end="\n" if page else "")
        if hindrance is not None:
            print(f"anomalib-rd: {explain(hindrance) or hindrance}", file=sys.stderr)
            # With no complete run there is no report; else it can't be written.
            if not wrong and any(state.state in ("done", "partial") for state in states):
                raise SystemExit(2) from hindrance
        if wrong:
            print(f"anomalib-rd: {len(wrong)} of {len(states)} runs failed:", file=sys.stderr)
            for state in wrong:
                reason = state.reason or "its process ended without a word"
                print(f"  {state.run}: {reason}", file=sys.stderr)
            raise SystemExit(1)

    def _prepare(self, config: DictConfig, folder: Path) -> int:
        """Write down the jobs; their number if all of them are complete, else 0."""
        from anomalib_rd.cli.values import require_texts
        from anomalib_rd.results.provenance import command_line, mask_arguments
        from anomalib_rd.results.sweeps import add_jobs, find_started_runs
        from anomalib_rd.training.model_selection import check_choices

        ignore_variables_of_one_run()
        require_texts(config)
        if config.hydra.sweeper.get("params"):
            with read_write(config.hydra.sweeper), open_dict(config.hydra.sweeper):
                config.hydra.sweeper.params = params_as_typed(config)
        if config.optimized_metric is not None:
            # Once jobs run, a sweeper sees no reason, only a trial without a value.
            check_choices(config)
        self.typed = list(config.hydra.overrides.task)
        here = on_this_machine(config.hydra.launcher)
        # Composing many jobs takes a minute: a missing data set is found before.
        jobs = list_jobs(config, look_for_data if here else None)
        if jobs is None:
            return 0
        require_own_ids(jobs)
        if here:
            require_data(jobs)
        self.runs = [job.folder for job in jobs]
        self.labels = labels({job.folder: mask_arguments(job.overrides) for job in jobs})
        others = set(find_started_runs(folder)) - set(self.runs)
        if others:
            print(f"anomalib-rd: {len(others)} runs in {folder} are of other configs; kept")
        changed = [job.folder for job in jobs if job.changed]
        if changed:
            print(f"anomalib-rd: {changed_line(folder, changed)}", file=sys.stderr)
        words = command_line(["anomalib-rd", "train", *sys.argv[1:]])
        add_jobs(folder, words, {job.folder: mask_arguments(job.overrides) for job in jobs})
        return len(jobs) if all(job.complete for job in jobs) else 0


def ignore_variables_of_one_run() -> None:
    """Remove what W&B's environment says of one run, so that no two runs share it."""
    found = [name for name in ONE_RUN if os.environ.pop(name, None)]
    if found:
        print(
            f"anomalib-rd: {', '.join(found)} ignored: each run of a multirun has its own",
            file=sys.stderr,
        )


def look_for_data(job: "Job") -> None:
    """Refuse a job whose data set or category is not there."""

    if not job.complete:
        categories_found(job)


def on_this_machine(launcher: DictConfig) -> bool:
    """Whether the jobs run here, and so see the images that this process sees."""
    address = OmegaConf.select(launcher, "ray.init.address", default="local")
    return address == "local" and not str(launcher._target_).endswith("SlurmLauncher")


def labels(jobs: Mapping[str, Sequence[str]]) -> list[str]:
    """What tells each job from the others: the overrides that not all have, else its folder."""
    shared = set.intersection(*map(set, jobs.values())) if len(jobs) > 1 else set()
    return [
        label([word for word in words if word not in shared]) or run for run, words in jobs.items()
    ]


def label(words: Sequence[str]) -> str:
    """``["data.category=bottle", "model=rd4ad", "seed=1"]`` -> ``bottle rd4ad seed=1``."""
    pairs = [word.partition("=") for word in words]
    # As in a run's name: what it is of first.
    pairs.sort(key=lambda pair: BARE.index(pair[0]) if pair[0] in BARE else len(BARE))
    return " ".join(value if key in BARE else f"{key}={value}" for key, _, value in pairs)


def go_offline_without_login(config: DictConfig, folder: Path) -> None:
    """Say once, in place of every job, that runs log offline for want of a login."""
    from anomalib_rd.tracking.keys import WANDB_LOGGER

    loggers = [spec for spec in config.logger.values() if spec and "_target_" in spec]
    if not any(spec._target_ == WANDB_LOGGER and not spec.get("mode") for spec in loggers):
        return
    from anomalib_rd.tracking.wandb_logger import is_login_missing

    if is_login_missing():
        # The jobs' processes are started with it.
        os.environ["WANDB_MODE"] = "offline"
        named = os.environ.get("WANDB_DIR")
        # The summary run's files are in the sweep's own folder.
        files = Path(shlex.quote(named or str(folder)), "wandb" if named else "{,*/*/}wandb")
        print(
            f"anomalib-rd: W&B: no login found: offline; `wandb sync {files}/offline-run-*` uploads"
        )
