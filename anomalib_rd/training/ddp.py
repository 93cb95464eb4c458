"""DDP: start and supervise the processes of one run.

Lightning would start them by repeating the command line, which in a multirun is that of the
complete sweep and in a launcher's worker does not exist; and it would kill this process when one
of them fails.
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
    """One process per device of this machine; 1 if torchrun or Slurm started them already.

    Raises:
        UserError: unavailable devices, or several machines without torchrun or Slurm.
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
    """Run `anomalib_rd.training.train.train` in one process per device.

    Args:
        cfg: the run's config.
        count: number of processes.
        prepare: called in each process, to register the config's resolvers.
        explain: a user error as one line; None for any other error.

    Raises:
        UserError: a user error in any of the processes.
        RuntimeError: any other error in one of them, with its traceback as a note.
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
    """Train in one of the processes; its rank is in the environment."""
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
    """Run ``work(*args)`` in a process group; returns rank -> return value.

    The first failure ends all processes. They share the CPU threads of this process. Raises as
    `train_in_processes`.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}
    with TemporaryDirectory() as folder, restore_signal_handlers(), env_override(threads):
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
    """The first error in the processes' files: later ones only report a missing process.

    ``default`` is the message if there is no file, for example after a kill.
    """
    written = sorted(folder.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns)
    if not written:
        return RuntimeError(f"a process of this run ended: {default}")
    report = json.loads(written[0].read_text())["message"]
    kind, _, text = report["message"].partition(": ")
    if kind == UserError.__name__:
        return UserError(text)
    error = RuntimeError(f"in process {written[0].parent.name} of this run: {report['message']}")
    error.add_note(report["extraInfo"]["py_callstack"])
    return error


@contextmanager
def restore_signal_handlers() -> Iterator[None]:
    """Restore the handlers that torch replaces."""
    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
