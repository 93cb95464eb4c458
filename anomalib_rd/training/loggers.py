"""The loggers of a run; a resumed one continues the run that W&B knows."""

import os
import secrets
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from anomalib_rd.results.files import write_atomically
from anomalib_rd.results.progress import first_process

WANDB_LOGGER = "anomalib_rd.tracking.wandb_logger.wandb_logger"
WANDB_ID = "wandb-id.txt"


def make_loggers(cfg: DictConfig, run_dir: Path, resumed: bool) -> list[Logger]:
    """The config's loggers.

    Args:
        cfg: the run's config.
        run_dir: the run's folder; it keeps the id that the run has in W&B.
        resumed: whether the run goes on from a checkpoint, in W&B too.
    """
    loggers = []
    for spec in cfg.logger.values():
        more: dict[str, Any] = {}
        # An agent of a W&B sweep says the id itself.
        own_id = spec.get("id") or os.environ.get("WANDB_RUN_ID")
        if spec["_target_"] == WANDB_LOGGER and not own_id and first_process():
            more["id"] = wandb_id(run_dir, resumed)
        loggers.append(instantiate(spec, **more))
    return loggers


def wandb_id(run_dir: Path, resumed: bool) -> str:
    """The run's id in W&B: a new one for a run that starts anew, else the one it had."""
    path = run_dir / WANDB_ID
    if resumed and path.is_file():
        return path.read_text().strip()
    made = secrets.token_hex(4)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(f"{made}\n".encode()))
    return made
