"""The loggers of a run; a resumed one continues the run that W&B knows."""

import os
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from anomalib_rd.results.sweeps import is_main_process
from anomalib_rd.tracking.keys import WANDB_LOGGER
from anomalib_rd.tracking.wandb_logger import get_run_id


def make_loggers(cfg: DictConfig, run_dir: Path, resumed: bool) -> list[Logger]:
    """The config's loggers.

    Args:
        cfg: the run's config.
        run_dir: the run's folder; it keeps the id that the run has in W&B.
        resumed: whether the run goes on from a checkpoint, in W&B too.
    """
    loggers = []
    for spec in filter(None, cfg.logger.values()):
        more: dict[str, Any] = {}
        # An agent of a W&B sweep says the id itself.
        own_id = spec.get("id") or os.environ.get("WANDB_RUN_ID")
        if spec["_target_"] == WANDB_LOGGER and not own_id and is_main_process():
            more["id"] = get_run_id(run_dir, again=resumed)
        loggers.append(instantiate(spec, **more))
    return loggers
