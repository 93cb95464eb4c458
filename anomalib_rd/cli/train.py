"""``anomalib-rd train``: a Hydra app; every word after the verb is Hydra's."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from anomalib_rd.cli.categories import expand_categories
from anomalib_rd.cli.config import conf_dir, register_resolvers
from anomalib_rd.cli.mistakes import explain
from anomalib_rd.cli.values import check_values

log = logging.getLogger("anomalib_rd")


def run(words: list[str]) -> int:
    """Compose the config and run the job, or with ``-m`` the jobs."""
    register_resolvers()
    if not {"--help", "--hydra-help", "-sc", "--shell-completion"} & set(words):
        check_values(words)
        words = expand_categories(words)
    typed, errors = list(sys.argv), []

    def job(cfg: DictConfig) -> Any:
        # DDP starts its other processes by the command as it was typed.
        sys.argv = typed
        many = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            objective = work(cfg)
            if not many:
                show_result(cfg)
            return objective
        except Exception as error:
            if many and cfg.objective is None:
                return note_failure(cfg, error)
            errors.append(error)  # Hydra would wrap it in lines of its own
            return float("nan")

    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)
    # Hydra would print its own account of an error; the caller has a better one.
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        sys.argv = [typed[0], *words]
        app()
    finally:
        sys.argv = typed
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    if errors:
        raise errors[0]
    return 0


def work(cfg: DictConfig) -> float | None:
    """One job."""
    from anomalib_rd.training.run import train

    return train(cfg)


def show_result(cfg: DictConfig) -> None:
    """Print the table of a single run; a multirun prints its own at the end."""
    from anomalib_rd.reports.report import show
    from anomalib_rd.results.record import RESULT

    # In a DDP run every process but the first comes here without a record of its own.
    if int(os.environ.get("LOCAL_RANK", "0")) == 0 and Path(cfg.run_dir, RESULT).is_file():
        show([cfg.run_dir])


def note_failure(cfg: DictConfig, error: Exception) -> None:
    """Record that one job of many failed; the others go on."""
    from anomalib_rd.results.record import write_failure

    write_failure(Path(cfg.run_dir), error)
    log.error("%s failed: %s", cfg.name, explain(error) or f"{type(error).__name__}: {error}")
