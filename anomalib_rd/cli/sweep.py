"""What a multirun does at its start and its end, and before each of its jobs."""

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from anomalib_rd.cli.errors import explain
from anomalib_rd.cli.page import leave_page
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.cli.jobs import Job

# Variables of W&B that name or continue one run.
ONE_RUN = ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM")
# Keys whose values say enough by themselves.
BARE = ("data.category", "model")

log = logging.getLogger(__name__)


class ReportAtEnd(Callback):
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
        ReportAtEnd.sweep = str(config.sweep)
        ReportAtEnd.folder = str(config.hydra.sweep.dir)
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
        from anomalib_rd.results.sweeps import begun_runs, run_state
        from anomalib_rd.tracking.sweep_summary import log_sweep

        folder = Path(config.hydra.sweep.dir)
        runs = begun_runs(folder) if self.runs is None else self.runs
        states = [run_state(folder, run) for run in runs]
        # Another process may have taken some up, with the same command; of a search's runs
        # only those that failed are known to be wrong.
        fine = {"done", "partial", "running"} | (set() if self.runs is not None else {"cut off"})
        wrong = [state for state in states if state.state not in fine]
        made, page, hindrance = None, "", None
        try:
            made = read_report([folder])
            write_report(made, folder)
            page = leave_page(folder) if config.page else ""
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
        from anomalib_rd.cli.jobs import (
            changed_line,
            list_jobs,
            params_as_typed,
            require_data,
            require_own_ids,
        )
        from anomalib_rd.cli.values import require_texts
        from anomalib_rd.results.provenance import command, mask_arguments
        from anomalib_rd.results.sweeps import add_jobs, begun_runs
        from anomalib_rd.training.model_selection import check_choices

        ignore_variables_of_one_run()
        require_texts(config)
        if config.hydra.sweeper.get("params"):
            with read_write(config.hydra.sweeper), open_dict(config.hydra.sweeper):
                config.hydra.sweeper.params = params_as_typed(config)
        if config.objective is not None:
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
        others = set(begun_runs(folder)) - set(self.runs)
        if others:
            print(f"anomalib-rd: {len(others)} runs in {folder} are of other configs; kept")
        changed = [job.folder for job in jobs if job.changed]
        if changed:
            print(f"anomalib-rd: {changed_line(folder, changed)}", file=sys.stderr)
        words = command(["anomalib-rd", "train", *sys.argv[1:]])
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
    from anomalib_rd.cli.jobs import categories_found

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
    from anomalib_rd.tracking.wandb_logger import lacks_login

    if lacks_login():
        # The jobs' processes are started with it.
        os.environ["WANDB_MODE"] = "offline"
        named = os.environ.get("WANDB_DIR")
        # The summary run's files are in the sweep's own folder.
        files = Path(shlex.quote(named or str(folder)), "wandb" if named else "{,*/*/}wandb")
        print(
            f"anomalib-rd: W&B: no login found: offline; `wandb sync {files}/offline-run-*` uploads"
        )
