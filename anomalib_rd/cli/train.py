"""``anomalib-rd train``: a Hydra app; every word after the verb is Hydra's."""

import gc
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_original_cwd
from omegaconf import DictConfig

from anomalib_rd.cli import reproduce
from anomalib_rd.cli.categories import expand_categories
from anomalib_rd.cli.config import conf_dir, register_resolvers
from anomalib_rd.cli.errors import explain
from anomalib_rd.cli.points import register_points
from anomalib_rd.cli.report import write_report_page
from anomalib_rd.cli.sweep import ONE_RUN, SweepCallback
from anomalib_rd.cli.values import check_values, require_texts
from anomalib_rd.cli.words import as_typed, literal, one_value, typed_key
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import write_atomically
from anomalib_rd.results.provenance import mask_arguments, mask_text

TERMINATED = 128 + signal.SIGTERM
SEVERAL = {"study", "point", "hparams_search"}

log = logging.getLogger("anomalib_rd")


def run(words: list[str]) -> int:
    """Compose the config and run the job, or with ``-m`` the jobs."""
    register_resolvers()
    asked, (record, switches, words) = list(words), reproduce.asked_for(words)
    if {"--help", "--hydra-help", "-sc", "--shell-completion"} & set(words):
        return launch(words, asked)
    words = as_typed(flags_first(words))
    if record is not None:
        again = reproduce.read_repeat(record, switches, words)
        with reproduce.as_primary(again, words) as words_again:
            return launch(words_again, asked, again)
    register_points(words)
    check_values(words)
    return launch(expand_categories(words), asked)


def launch(words: list[str], asked: list[str], again: reproduce.Reproduction | None = None) -> int:
    """Have Hydra run the jobs.

    Args:
        words: for Hydra.
        asked: as typed, to say how an interrupted run goes on.
        again: what is repeated, if that is asked for.
    """
    typed, errors = list(sys.argv), []
    # A multirun removes or sets them for its jobs.
    environment = {name: os.environ.get(name) for name in (*ONE_RUN, "WANDB_MODE")}
    SweepCallback.sweep = SweepCallback.folder = single = current = None

    def job(cfg: DictConfig) -> Any:
        nonlocal single, current
        # As it was typed, for the record; W&B keeps it too.
        sys.argv = [typed[0], *mask_arguments(typed[1:])]
        if HydraConfig.get().job.chdir:
            # Paths are as seen from where the command was typed; the run's folder has its own key.
            os.chdir(get_original_cwd())
        hide_credentials()
        many = HydraConfig.get().mode == RunMode.MULTIRUN
        single = None if many else HydraConfig.get().run.dir
        current = Path(cfg.run_dir)
        try:
            require_texts(cfg)
            said = reproduce.report_differences(again, cfg) if again else []
            objective = work(cfg)
            if not many:
                show_result(cfg)
            if again:
                reproduce.report_reproduction(again, Path(cfg.run_dir), said)
            return objective
        except Exception as error:
            if many and cfg.optimized_metric is None:
                return note_failure(cfg, error)
            errors.append(error)  # Hydra would wrap it in lines of its own
            return None

    try:
        start_hydra(job, words)
    except Exception:
        if errors:  # a sweeper trips over a job that failed: the job's error says why
            raise errors[0] from None
        raise
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != TERMINATED:
            raise
        again_by = resume_command(asked, SweepCallback.sweep, single, SweepCallback.folder)
        line = "; ".join(filter(None, [where_it_goes_on(current), again_by]))
        if isinstance(stop, KeyboardInterrupt):
            raise KeyboardInterrupt(line) from stop
        print(f"anomalib-rd: terminated; {line}", file=sys.stderr)
        raise
    finally:
        sys.argv = typed
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    if errors:
        raise errors[0]
    return 0


def flags_first(words: list[str]) -> list[str]:
    """The words with Hydra's flags before the overrides: between them Hydra takes none.

    Raises:
        UserError: an unknown flag, one without its value, a question by config without ``-m``.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"train: {message}; see `anomalib-rd train --hydra-help`")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    options = parser.parse_intermixed_args(words)
    if options.experimental_rerun:
        refuse("--experimental-rerun runs what a pickle says; --from RESULT repeats a run")
    if options.resolve and not options.cfg:
        refuse("--resolve goes with --cfg")
    if options.multirun and (options.cfg or options.info):
        refuse("--cfg and --info show the config of one run; leave -m out")
    for word in options.overrides:
        alone = not (options.multirun or options.cfg or options.info)
        if alone and word.partition("=")[0] in SEVERAL:
            raise UserError(f"{word}: asks for several runs; add -m")
    flags = list(words)
    for word in options.overrides:
        flags.remove(word)
    return [*flags, *options.overrides]


def start_hydra(job: Callable[[DictConfig], Any], words: list[str]) -> None:
    """Let Hydra compose the config and call the job once or many times."""
    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)
    # Hydra would print its own account of an error; the caller has a better one.
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        sys.argv = [sys.argv[0], *words]
        app()
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def hide_credentials() -> None:
    """Mask them in what Hydra has just kept of the command."""
    config = HydraConfig.get()
    kept = [*Path(config.runtime.output_dir).glob(".hydra/*.yaml")]
    if config.mode == RunMode.MULTIRUN:
        kept += Path(config.sweep.dir).glob("multirun.yaml")
    for path in kept:
        mask_file(path)


def mask_file(path: Path) -> None:
    """Put the text without credentials in its place, if it has some."""
    text = path.read_text()
    masked = mask_text(text)
    if masked != text:
        write_atomically(path, lambda file: file.write(masked.encode()))


def work(cfg: DictConfig) -> float | None:
    """One job: run anew, gone on with, or skipped, by what its folder holds."""
    from anomalib_rd.cli.sweep import changed_line, data_changed, is_complete_run
    from anomalib_rd.results.sweeps import claim_run

    run_dir = Path(cfg.run_dir)
    # A search asks for the run's value, so that it runs again.
    if cfg.optimized_metric is None and is_complete_run(run_dir, cfg):
        log.info("%s is complete: skipped", cfg.name)
        # A multirun warns once for all its jobs.
        if HydraConfig.get().mode != RunMode.MULTIRUN and data_changed(run_dir, cfg):
            log.warning(changed_line(run_dir, []))
        return None
    with claim_run(run_dir):
        from anomalib_rd.cli.processes import train

        # Another process may have finished it while this one came here.
        if cfg.optimized_metric is None and is_complete_run(run_dir, cfg):
            log.info("%s is complete: skipped", cfg.name)
            return None
        try:
            objective = train(cfg)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                contained(log_threshold, run_dir)
            return objective
        finally:
            # Networks and loaders refer to each other in circles: the next run would begin with
            # this one's memory, on the device too, and with its data workers.
            gc.collect()


def resume_command(
    words: list[str], sweep: str | None, run_dir: str | None, sweep_dir: str | None = None
) -> str:
    """The shell command that takes an interrupted run or multirun up again.

    Words that hold a credential are left out of it, and named before.

    Args:
        words: as typed, without the verb.
        sweep: name of the multirun that was going on, if any.
        run_dir: of the single run that was going on, if any.
        sweep_dir: folder of the multirun, if any.
    """
    if sweep is None and run_dir is None:
        return ""
    masked = mask_arguments(words)
    secret = {i for i, word in enumerate(words) if word != masked[i]}
    left_out = [typed_key(words[i]) or words[i - 1] for i in sorted(secret)]
    words = [word for i, word in enumerate(words) if i not in secret]
    places_of_run = {"sweep": sweep, "hydra.sweep.dir": sweep_dir, "hydra.run.dir": run_dir}
    for key, value in places_of_run.items():
        if value is None:
            continue
        places = [i for i, word in enumerate(words) if typed_key(word) == key]
        as_read = one_value(key, value) == literal(value)
        word = f"{key}={value if as_read else literal(value)}"
        if not places and key != "hydra.sweep.dir":
            words.append(word)
        elif places and "${" in words[places[-1]]:
            words[places[-1]] = word  # such as ${now:...}, which would be another folder
    command = " ".join([program(), "train", *map(shlex.quote, words)])
    again = f"give {', '.join(left_out)} again, left out as secret; " if left_out else ""
    return f"{again}go on with: {command}"


def program() -> str:
    """What a shell here starts this program by."""
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


def where_it_goes_on(run_dir: Path | None) -> str:
    """From which epoch an interrupted run goes on.

    Args:
        run_dir: of the run that was going on in this process, if any.
    """
    if run_dir is None:
        return ""
    from anomalib_rd.training.checkpoints import saved_epochs

    epochs = saved_epochs(run_dir)
    if not epochs:
        return f"{run_dir}: no finished epoch is saved, it starts from the beginning"
    return f"{run_dir}: saved up to epoch {epochs}, it goes on from there"


def show_result(cfg: DictConfig) -> None:
    """Print the table and threshold of a single run, and leave its page.

    A multirun has its own table and page at the end.
    """
    run_dir = Path(cfg.run_dir)
    # In a DDP run every process but the first comes here without a record of its own.
    page = write_report_page(run_dir) if cfg.report.html and has_record(run_dir) else ""
    # Printing comes last: whoever reads may have enough after a line, and close the pipe.
    contained(show_table, run_dir)
    contained(log_threshold, run_dir)
    if page:
        print(page)


def has_record(run_dir: Path) -> bool:
    """Whether this process is the one to show the run's record."""
    from anomalib_rd.results.record import RESULT

    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and (run_dir / RESULT).is_file()


def contained(show: Callable[[Path], None], run_dir: Path) -> None:
    """Show something of a run's record; what goes wrong is one line: the result is on disk."""
    if not has_record(run_dir):
        return
    try:
        show(run_dir)
    except Exception as error:
        line = explain(error) or f"{type(error).__name__}: {error}"
        log.warning("%s: the result is written but cannot be shown: %s", run_dir, line)


def show_table(run_dir: Path) -> None:
    """Print the run's metrics."""
    from anomalib_rd.reports.report import show

    show(run_dir)


def log_threshold(run_dir: Path) -> None:
    """Log the run's threshold, its rate and its source, and whether the run is whole."""
    from anomalib_rd.results.record import RESULT, read_record, trainer_limits
    from anomalib_rd.results.threshold import describe_threshold

    record = read_record(run_dir)
    log.info("Threshold: %s", describe_threshold(record, run_dir / RESULT))
    if limits := trainer_limits(record):
        log.warning("Only a part of a run, no result: the trainer had %s", limits)


def note_failure(cfg: DictConfig, error: Exception) -> None:
    """Record that one job of many failed; the others go on."""
    from anomalib_rd.results.record import FAILURE, write_failure
    from anomalib_rd.results.sweeps import RunningElsewhereError, is_main_process

    if isinstance(error, RunningElsewhereError):
        log.warning("%s: left to the other process", error)
        return
    # The run itself may have left one, with more to it.
    if is_main_process() and not Path(cfg.run_dir, FAILURE).exists():
        write_failure(Path(cfg.run_dir), error)
    log.error("%s failed: %s", cfg.name, explain(error) or f"{type(error).__name__}: {error}")
