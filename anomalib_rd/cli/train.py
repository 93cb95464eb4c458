"""``anomalib-rd train``: a Hydra app; Hydra parses all arguments."""

import gc
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_original_cwd
from omegaconf import DictConfig

from anomalib_rd.cli.config import conf_dir, literal, register_resolvers
from anomalib_rd.cli.errors import error_line
from anomalib_rd.cli.override_checks import check_config, check_overrides
from anomalib_rd.cli.overrides import (
    expand_categories,
    override_key,
    quote_overrides,
    quote_value,
    register_points,
)
from anomalib_rd.cli.report import write_report_page
from anomalib_rd.cli.reproduce import (
    Reproduction,
    read_reproduction,
    report_differences,
    report_reproduction,
    split_options,
    use_recorded_config,
)
from anomalib_rd.cli.sweep import (
    SINGLE_RUN_VARIABLES,
    SweepCallback,
    changed_data_warning,
    data_changed,
    is_complete_run,
)
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import write_atomically
from anomalib_rd.results.provenance import mask_arguments, mask_text
from anomalib_rd.results.record import (
    FAILURE,
    RESULT,
    read_record,
    trainer_limits,
    write_failure,
)
from anomalib_rd.results.sweeps import RunningElsewhereError, claim_run, is_main_process
from anomalib_rd.results.threshold import describe_threshold

TERMINATED = 128 + signal.SIGTERM
MULTIRUN_GROUPS = {"study", "point", "hparams_search"}

log = logging.getLogger("anomalib_rd")


def run(arguments: list[str]) -> int:
    """Check the arguments, then let Hydra compose the config and run the job or jobs."""
    register_resolvers()
    options, hydra_arguments = split_options(arguments)
    if {"--help", "--hydra-help", "-sc", "--shell-completion"} & set(hydra_arguments):
        return launch(hydra_arguments, arguments)
    hydra_arguments = quote_overrides(_flags_first(hydra_arguments))
    if options.records:
        reproduction = read_reproduction(options, hydra_arguments)
        with use_recorded_config(reproduction, hydra_arguments) as hydra_arguments:
            return launch(hydra_arguments, arguments, reproduction)
    register_points(hydra_arguments)
    check_overrides(hydra_arguments)
    return launch(expand_categories(hydra_arguments), arguments)


def _flags_first(arguments: list[str]) -> list[str]:
    """Sort Hydra's flags before the overrides: Hydra accepts no flags between overrides.

    Raises:
        UserError: an unknown flag, one without its value, or a study without ``-m``.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"train: {message}; see `anomalib-rd train --hydra-help`")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    options = parser.parse_intermixed_args(arguments)
    if options.experimental_rerun:
        refuse("--experimental-rerun executes a pickle; reproduce a run with --from RESULT")
    if options.resolve and not options.cfg:
        refuse("--resolve requires --cfg")
    if options.multirun and (options.cfg or options.info):
        refuse("--cfg and --info show the config of one run; omit -m")
    flags = list(arguments)
    for override in options.overrides:
        flags.remove(override)
        single = not (options.multirun or options.cfg or options.info)
        if single and override.partition("=")[0] in MULTIRUN_GROUPS:
            raise UserError(f"{override}: starts several runs; add -m")
    return [*flags, *options.overrides]


def launch(arguments: list[str], typed: list[str], reproduction: Reproduction | None = None) -> int:
    """Let Hydra run the jobs.

    Args:
        arguments: for Hydra.
        typed: the user's arguments, for the command that resumes an interrupted run.
        reproduction: the record to reproduce, if any.
    """
    argv = list(sys.argv)
    errors: list[Exception] = []
    SweepCallback.sweep = SweepCallback.folder = single_dir = current_dir = None

    def job(cfg: DictConfig) -> Any:
        nonlocal single_dir, current_dir
        # The record and W&B read the command from sys.argv.
        sys.argv = [argv[0], *mask_arguments(argv[1:])]
        if HydraConfig.get().job.chdir:
            # Paths are relative to the folder of the command.
            os.chdir(get_original_cwd())
        _mask_hydra_files()
        single_dir = None if _is_multirun() else HydraConfig.get().run.dir
        current_dir = Path(cfg.run_dir)
        try:
            return _run_job(cfg, reproduction)
        except Exception as error:
            if _is_multirun() and cfg.optimized_metric is None:
                return _record_failure(cfg, error)
            errors.append(error)  # raised below, because Hydra would wrap it
            return None

    # Multiruns change W&B's variables.
    with _restored_environment("HYDRA_FULL_ERROR", "WANDB_MODE", *SINGLE_RUN_VARIABLES):
        os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints errors itself
        try:
            sys.argv = [argv[0], *arguments]
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
        except Exception:
            if errors:  # a sweeper fails when a job fails: the error of the job is the reason
                raise errors[0] from None
            raise
        except (KeyboardInterrupt, SystemExit) as stop:
            if isinstance(stop, SystemExit) and stop.code != TERMINATED:
                raise
            command = resume_command(typed, SweepCallback.sweep, single_dir, SweepCallback.folder)
            line = "; ".join(filter(None, [_resume_point(current_dir), command]))
            if isinstance(stop, KeyboardInterrupt):
                raise KeyboardInterrupt(line) from stop
            print(f"anomalib-rd: terminated; {line}", file=sys.stderr)
            raise
        finally:
            sys.argv = argv
    if errors:
        raise errors[0]
    return 0


@contextmanager
def _restored_environment(*names: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _is_multirun() -> bool:
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _mask_hydra_files() -> None:
    """Mask credentials in the files that Hydra has written about the command."""
    config = HydraConfig.get()
    files = [*Path(config.runtime.output_dir).glob(".hydra/*.yaml")]
    if _is_multirun():
        files += Path(config.sweep.dir).glob("multirun.yaml")
    for path in files:
        text = path.read_text()
        masked = mask_text(text)
        if masked != text:
            write_atomically(path, partial(_write_text, masked))


def _write_text(text: str, file: BinaryIO) -> None:
    file.write(text.encode())


def _run_job(cfg: DictConfig, reproduction: Reproduction | None) -> float | None:
    """Train or skip, and report the result; returns the objective."""
    check_config(cfg)
    differences = report_differences(reproduction, cfg) if reproduction else []
    objective = _train_or_skip(cfg)
    if not _is_multirun():
        _report_result(cfg)
    if reproduction:
        report_reproduction(reproduction, Path(cfg.run_dir), differences)
    return objective


def _train_or_skip(cfg: DictConfig) -> float | None:
    """Train, resume, or skip, depending on the contents of the run's folder."""
    run_dir = Path(cfg.run_dir)
    # A search needs the objective of a complete run too, and so repeats it.
    if cfg.optimized_metric is None and is_complete_run(run_dir, cfg):
        log.info("%s is complete: skipped", cfg.name)
        # A multirun has warned for all its jobs.
        if not _is_multirun() and data_changed(run_dir, cfg):
            log.warning(changed_data_warning(run_dir, []))
        return None
    with claim_run(run_dir):
        from anomalib_rd.cores import limit_threads
        from anomalib_rd.training.ddp import processes_to_start, train_in_processes
        from anomalib_rd.training.train import train

        # Another process may have finished it since.
        if cfg.optimized_metric is None and is_complete_run(run_dir, cfg):
            log.info("%s is complete: skipped", cfg.name)
            return None
        try:
            count = processes_to_start(cfg)
            if count > 1:
                objective = train_in_processes(cfg, count, register_resolvers, error_line)
            else:
                limit_threads(cfg.trainer.accelerator)
                objective = train(cfg)
            if _is_multirun():
                _report_result(cfg)
            return objective
        finally:
            # Networks and loaders are in reference cycles: free their memory, also on the device,
            # and their data workers before the next run.
            gc.collect()


def _report_result(cfg: DictConfig) -> None:
    """Log a finished run's threshold; for a single run print the table and write the page.

    Errors are logged as one line, because the result is on disk.
    """
    run_dir = Path(cfg.run_dir)
    # In a DDP run only the first process has the record.
    if int(os.environ.get("LOCAL_RANK", "0")) != 0 or not (run_dir / RESULT).is_file():
        return
    page = ""
    reports: list[Callable[[Path], Any]] = [_log_threshold]
    if not _is_multirun():
        from anomalib_rd.reports.report import show

        page = write_report_page(run_dir) if cfg.report.html else ""
        reports.insert(0, show)
    # Printing comes last: the reader may close the pipe after a line.
    for report in reports:
        try:
            report(run_dir)
        except Exception as error:
            message = "%s: the result is saved but cannot be printed: %s"
            log.warning(message, run_dir, error_line(error))
    if page:
        print(page)


def _log_threshold(run_dir: Path) -> None:
    """Log the threshold with its false positive rate, and whether the run is partial."""
    record = read_record(run_dir)
    log.info("Threshold: %s", describe_threshold(record, run_dir / RESULT))
    if limits := trainer_limits(record):
        log.warning("Partial run, not a result: the trainer was limited by %s", limits)


def _record_failure(cfg: DictConfig, error: Exception) -> None:
    """Record that one job of a multirun failed; the others continue."""
    if isinstance(error, RunningElsewhereError):
        log.warning("%s: skipped, another process runs it", error)
        return
    # The run may have written its failure with more details.
    if is_main_process() and not Path(cfg.run_dir, FAILURE).exists():
        write_failure(Path(cfg.run_dir), error)
    log.error("%s failed: %s", cfg.name, error_line(error))


def _resume_point(run_dir: Path | None) -> str:
    """The epoch that an interrupted run resumes from."""
    if run_dir is None:
        return ""
    from anomalib_rd.training.checkpoints import saved_epochs

    epochs = saved_epochs(run_dir)
    if not epochs:
        return f"{run_dir}: no epoch was finished; it will start again"
    return f"{run_dir}: saved up to epoch {epochs}; it will resume from there"


def resume_command(
    arguments: list[str], sweep: str | None, run_dir: str | None, sweep_dir: str | None = None
) -> str:
    """The shell command that resumes an interrupted run or multirun.

    Arguments with a credential are omitted from the command and named before it.

    Args:
        arguments: as typed, without the command's name.
        sweep: name of the interrupted multirun, if any.
        run_dir: folder of the interrupted single run, if any.
        sweep_dir: folder of the multirun, if any.
    """
    if sweep is None and run_dir is None:
        return ""
    secret = [a != masked for a, masked in zip(arguments, mask_arguments(arguments), strict=True)]
    omitted = [
        override_key(argument) or arguments[i - 1]
        for i, argument in enumerate(arguments)
        if secret[i]
    ]
    words = [argument for i, argument in enumerate(arguments) if not secret[i]]
    folders = {"sweep": sweep, "hydra.sweep.dir": sweep_dir, "hydra.run.dir": run_dir}
    for key, value in folders.items():
        if value is None:
            continue
        positions = [i for i, word in enumerate(words) if override_key(word) == key]
        reads_as_typed = quote_value(key, value) == literal(value)
        word = f"{key}={value if reads_as_typed else literal(value)}"
        if not positions and key != "hydra.sweep.dir":
            words.append(word)
        elif positions and "${" in words[positions[-1]]:
            words[positions[-1]] = word  # ${now:...} would be another folder
    command = " ".join([program(), "train", *map(shlex.quote, words)])
    secrets = f"add {', '.join(omitted)}, omitted as secret; " if omitted else ""
    return f"{secrets}resume with: {command}"


def program() -> str:
    """This program's name in the shell."""
    started = Path(sys.argv[0])
    if started.parts[-2:] == ("anomalib_rd", "__main__.py"):
        python = "python" if shutil.which("python") == sys.executable else sys.executable
        return f"{shlex.quote(python)} -m {started.parent.name}"
    found = shutil.which(started.name)
    if started.name != "anomalib-rd" or not started.is_file():
        return "anomalib-rd"
    if found and Path(found).samefile(started):
        return "anomalib-rd"
    return shlex.quote(str(started.absolute()))
