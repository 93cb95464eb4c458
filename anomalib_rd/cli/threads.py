"""CPU threads: no more than there are cores, and a warning where other processes use them."""

import logging
import os
from functools import cache

from omegaconf import DictConfig

from anomalib_rd import cores

log = logging.getLogger("anomalib_rd")


def settle_threads(cfg: DictConfig) -> None:
    """Give torch no more threads than this process has cores; warn if others use them.

    ``OMP_NUM_THREADS``, which launchers set too, is left as it is.
    """
    import torch

    if os.environ.get(cores.THREADS):
        return
    if torch.get_num_threads() > cores.usable_cores():  # torch does not know a container's limit
        torch.set_num_threads(cores.usable_cores())
    on_gpu = cfg.trainer.accelerator != "cpu" and torch.accelerator.is_available()
    if not on_gpu and torch.get_num_threads() > 1:
        warn_if_busy(torch.get_num_threads())


@cache  # once in a process, however many runs it trains
def warn_if_busy(threads: int) -> None:
    """Warn if the cores are too busy for this many threads, and name the way out."""
    usable, others = cores.usable_cores(), cores.other_trainings()
    idle = min(cores.idle_cores(), usable - cores.used_by(others))
    if threads <= idle + 0.5:
        return
    share = max(1, usable // (len(others) + 1) if others else round(idle))
    by = f" (anomalib-rd train: process {', '.join(map(str, others))})" if others else ""
    log.warning(
        "%.1f of %d CPU cores are in use by others%s, and this run has %d threads: that slows "
        "each down many times; run one at a time, or set %s=%d for each",
        usable - max(idle, 0),
        usable,
        by,
        threads,
        cores.THREADS,
        share,
    )
