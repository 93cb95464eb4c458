"""DDP: the processes of one run, started and supervised by the process of the command.

Lightning would start them with the command line, which in a multirun is that of the complete sweep
and in a launcher's worker does not exist, and would kill this process when one of them fails.
"""

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, env_override, setup_globals
from omegaconf import DictConfig

from anomalib_rd.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def processes_to_start(cfg: DictConfig) -> int:
    """One for each device of this machine; 1 if torchrun or Slurm have started them already.

    Raises:
        UserError: unavailable devices, or several machines and nothing that starts processes there.
    """
    if cfg.trainer.devices in (1, "1"):
        return 1
    from anomalib_rd.training.build import make_trainer

    trainer = make_trainer(cfg)
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None:
        return 1
    if environment.creates_processes_externally and environment.world_size() > 1:
        return 1
    if trainer.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: start the processes on all machines "
            "by torchrun or srun, with the same hydra.run.dir"
        )
    return trainer.num_devices


def train_in_processes(
    cfg: DictConfig,
    count: int,
    prepare: Callable[[], None],
    explain: Callable[[BaseException], str | None],
) -> float | None:
    """`anomalib_rd.training.train.train` in one process for each device.

    Args:
        cfg: the run's config.
        count: number of processes.
        prepare: called in each of them, to register the config's resolvers.
        explain: an error of the user in one line; None for any other error.

    Raises:
        UserError: an error of the user in any of the processes.
        RuntimeError: another error in one of them; its traceback is a note of the error.
        KeyboardInterrupt: interrupted, after the processes have ended.
    """
    hydra: Any = HydraConfig.instance()
    values = run_in_processes(count, _train, cfg, hydra.cfg, prepare, explain)
    objective: float | None = values[0]
    return objective


def _train(
    cfg: DictConfig,
    hydra_cfg: DictConfig | None,
    prepare: Callable[[], None],
    explain: Callable[[BaseException], str | None],
) -> float | None:
    """Train in one of the processes, which finds its rank in its environment."""
    from anomalib_rd.training.train import train

    setup_globals()
    prepare()
    if hydra_cfg is not None:
        hydra: Any = HydraConfig.instance()
        hydra.cfg = hydra_cfg
        if os.environ["RANK"] == "0":
            configure_log(hydra_cfg.hydra.job_logging, hydra_cfg.hydra.verbose)
    try:
        return train(cfg)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        raise UserError(line) from error


def run_in_processes(count: int, work: Callable[..., Any], *args: Any) -> dict[int, Any]:
    """Run ``work(*args)`` in processes with torch's environment variables for a group.

    The first to fail ends them all. The CPU threads of this process are divided among them.

    Returns:
        Rank -> return value.

    Raises:
        UserError, RuntimeError, KeyboardInterrupt: as `train_in_processes`.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}
    with TemporaryDirectory() as folder, keep_signal_handlers(), env_override(threads):
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
            values: dict[int, Any] = elastic_launch(config, work)(*args)
        except ChildFailedError as error:
            raise earliest_error(Path(folder), error.get_first_failure()[1].message) from None
        except SignalException as stop:
            if stop.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + stop.sigval) from None
    return values


def earliest_error(folder: Path, default: Any) -> Exception:
    """The error that was written first: those after it only report a missing process.

    Args:
        folder: where the processes write their errors.
        default: the message if there are none, for example after a kill.
    """
    written = sorted(folder.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns)
    if not written:
        return RuntimeError(f"a process of this run has ended: {default}")
    report = json.loads(written[0].read_text())["message"]
    kind, _, text = report["message"].partition(": ")
    if kind == UserError.__name__:
        return UserError(text)
    error = RuntimeError(f"in process {written[0].parent.name} of this run: {report['message']}")
    error.add_note(report["extraInfo"]["py_callstack"])
    return error


@contextmanager
def keep_signal_handlers() -> Iterator[None]:
    """Restore the handlers that torch replaces."""
    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
