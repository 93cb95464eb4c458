"""DDP: the processes of one run, started and watched from the process that was asked for it.

Lightning would start them by the command line, which in a multirun is that of the whole sweep and
in a launcher's worker is none at all, and would kill this process when one of them fails.
"""

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, env_override, setup_globals
from omegaconf import DictConfig

from anomalib_rd.cli.config import register_resolvers
from anomalib_rd.cli.errors import explain
from anomalib_rd.cores import limit_threads
from anomalib_rd.errors import UserError

log = logging.getLogger("anomalib_rd")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def train(cfg: DictConfig) -> float | None:
    """Train in this process, or where the trainer asks for several devices, in one for each.

    Returns:
        What `anomalib_rd.training.run.train` does.

    Raises:
        UserError: whatever the user can mend, in any of the processes.
        RuntimeError: one of them failed otherwise; its traceback is a note of the error.
        KeyboardInterrupt: interrupted, and the processes are gone.
    """
    count = processes_to_start(cfg)
    if count > 1:
        hydra: Any = HydraConfig.instance()
        values: dict[int, float | None] = in_processes(count, train_as_one, cfg, hydra.cfg)
        return values[0]
    from anomalib_rd.training import run

    limit_threads(cfg.trainer.accelerator)
    return run.train(cfg)


def train_as_one(cfg: DictConfig, hydra_cfg: DictConfig | None) -> float | None:
    """What each process does; it finds its rank in its environment."""
    from anomalib_rd.training import run

    setup_globals()
    register_resolvers()
    if hydra_cfg is not None:
        hydra: Any = HydraConfig.instance()
        hydra.cfg = hydra_cfg
        if os.environ["RANK"] == "0":
            configure_log(hydra_cfg.hydra.job_logging, hydra_cfg.hydra.verbose)
    return run.train(cfg)


def processes_to_start(cfg: DictConfig) -> int:
    """One for each device of this machine; 1 where torchrun or Slurm have started them already.

    Raises:
        UserError: devices that are not there, or several machines and nothing that starts them.
    """
    if cfg.trainer.devices in (1, "1"):
        return 1
    from anomalib_rd.training.run import make_trainer

    trainer = make_trainer(cfg, loggers=[])
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None:
        return 1
    if environment.creates_processes_externally and environment.world_size() > 1:
        return 1
    if trainer.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: start the processes on all machines, "
            "by torchrun or srun, with one hydra.run.dir for all"
        )
    return trainer.num_devices


def in_processes(count: int, work: Any, *args: Any) -> dict[int, Any]:
    """Run ``work(*args)`` in processes with torch's variables for a group: rank -> what it gave.

    The first to fail ends them all. The CPU threads of this process are divided among them.

    Raises:
        UserError, RuntimeError, KeyboardInterrupt: as `train`.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}
    with TemporaryDirectory() as folder, own_signals(), env_override(threads):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id="anomalib-rd",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(s.name for s in SIGNALS),
        )
        try:
            values: dict[int, Any] = elastic_launch(config, said_by_user)(work, *args)
        except ChildFailedError as error:
            raise first_error(Path(folder), error.get_first_failure()[1].message) from None
        except SignalException as stop:
            if stop.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + stop.sigval) from None
    return values


def said_by_user(work: Any, *args: Any) -> Any:
    """Run ``work(*args)`` with all that the user can mend as a plain `UserError`."""
    try:
        return work(*args)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        raise UserError(line) from error


def first_error(folder: Path, otherwise: Any) -> Exception:
    """The error that was written first: what others then met is only that one process is gone.

    Args:
        folder: where the processes left their errors.
        otherwise: what to say if none did, as when one was killed.
    """
    written = sorted(folder.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns)
    if not written:
        return RuntimeError(f"a process of this run is gone: {otherwise}")
    report = json.loads(written[0].read_text())["message"]
    kind, _, text = report["message"].partition(": ")
    if kind == UserError.__name__:
        return UserError(text)
    error = RuntimeError(f"in process {written[0].parent.name} of this run: {report['message']}")
    error.add_note(report["extraInfo"]["py_callstack"])
    return error


@contextmanager
def own_signals() -> Iterator[None]:
    """Give the handlers back that torch sets and leaves."""
    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
