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

log = logging.getLogger("anomalib_rd")


def run(words: list[str]) -> int:
    """Compose the config and run the job, or with ``-m`` the jobs."""
    register_resolvers()
    words = expand_categories(words)
    # Hydra would print its own account of an error; the caller has a better one.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    typed, errors = list(sys.argv), []

    def job(cfg: DictConfig) -> Any:
        # DDP starts its other processes by the command as it was typed.
        sys.argv = typed
        try:
            return work(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN and cfg.objective is None:
                return note_failure(cfg, error)
            errors.append(error)  # Hydra would wrap it in lines of its own
            return float("nan")

    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)
    try:
        sys.argv = [typed[0], *words]
        app()
    finally:
        sys.argv = typed
    if errors:
        raise errors[0]
    return 0


def work(cfg: DictConfig) -> float | None:
    """One job."""
    from anomalib_rd.training.run import train

    return train(cfg)


def note_failure(cfg: DictConfig, error: Exception) -> None:
    """Record that one job of many failed; the others go on."""
    from anomalib_rd.results.record import write_failure

    write_failure(Path(cfg.run_dir), error)
    log.error("%s failed: %s", cfg.name, explain(error) or f"{type(error).__name__}: {error}")
