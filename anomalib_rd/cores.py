"""CPU cores that this process may use: control groups, threads, other trainings."""

import logging
import math
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

THREADS = "OMP_NUM_THREADS"
# Seconds: how long the use of cores is measured, and how long a training takes to start.
SAMPLE, YOUNG = 0.2, 30.0

log = logging.getLogger(__name__)


def own_groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, int]]:
    """The process's control group and its parents, each with its version, 1 or 2.

    Any of them may have a limit (Slurm sets one on a job's step), of which the lowest counts. If a
    container shows the paths of its host, which do not exist inside, its limit is at the top.

    Args:
        controller: such as ``cpu`` or ``memory``.
        root: of the file system, with ``proc/self/cgroup`` and ``sys/fs/cgroup``.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts, version = ["", "unified"], 2
        elif controller in controllers.split(","):
            mounts, version = [controller], 1
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            top = root / "sys/fs/cgroup" / mount
            for depth in range(len(parts) + 1):
                yield top.joinpath(*parts[:depth]), version


def usable_cores(root: Path = Path("/")) -> int:
    """The number of cores that affinity and control groups allow this process, at least 1.

    Args:
        root: of the file system with the control groups.
    """
    quota = min([1e9, *(_quota(group) for group, _ in own_groups("cpu", root))])
    return max(1, min(len(_affinity()), math.floor(quota)))


def _affinity() -> Collection[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _quota(group: Path) -> float:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):  # "max", or no limit
        return math.inf


def limit_threads(accelerator: str) -> None:
    """Limit torch's threads to the cores of this process; warn if other processes use them.

    ``OMP_NUM_THREADS``, which launchers set too, takes precedence.
    """
    import torch

    if os.environ.get(THREADS):
        return
    if torch.get_num_threads() > usable_cores():  # torch ignores a container's limit
        torch.set_num_threads(usable_cores())
    on_gpu = accelerator != "cpu" and torch.accelerator.is_available()
    if not on_gpu and torch.get_num_threads() > 1:
        warn_if_cores_busy(torch.get_num_threads())


@cache  # once a process, however many runs it trains
def warn_if_cores_busy(threads: int) -> None:
    """Warn if fewer cores are idle than this number of threads."""
    usable, others = usable_cores(), find_other_trainings()
    idle = min(idle_cores(), usable - cores_used(others))
    if threads <= idle + 0.5:
        return
    share = max(1, usable // (len(others) + 1) if others else round(idle))
    names = f" (anomalib-rd train: process {', '.join(map(str, others))})" if others else ""
    log.warning(
        "%.1f of %d CPU cores are in use by other processes%s, and this run has %d threads, which "
        "slows all down many times; run one at a time, or set %s=%d for each",
        *(usable - max(idle, 0), usable, names, threads, THREADS, share),
    )


def idle_cores() -> float:
    """The number of idle cores among those of this process, measured for `SAMPLE` seconds."""
    percents = psutil.cpu_percent(interval=SAMPLE, percpu=True)
    return sum(100 - percents[core] for core in _affinity() if core < len(percents)) / 100


def find_other_trainings() -> list[int]:
    """Process ids of other ``anomalib-rd train`` commands on this machine, without parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in own and is_training(process.info["cmdline"] or [])
    ]


def is_training(command: list[str]) -> bool:
    """Whether a command line is ``anomalib-rd train``."""
    names = [Path(word).name for word in command]
    for program in ("anomalib-rd", "anomalib_rd"):
        if program in names[:4]:
            return "train" in names[names.index(program) + 1 :][:1]
    return False


def thread_count(pid: int) -> int | None:
    """The number of threads of a process by its environment; None if that cannot be read."""
    try:
        value = psutil.Process(pid).environ().get(THREADS, "")
    except psutil.Error:
        return None
    return int(value) if value.isdecimal() else usable_cores()


def cores_used(pids: Iterable[int]) -> float:
    """The number of cores that these processes use, measured for `SAMPLE` seconds.

    A process that has just started counts with the threads that it will have.
    """
    processes, used = [], 0.0
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if time.time() - process.create_time() < YOUNG:
                used += thread_count(pid) or 0
            else:
                process.cpu_percent()
                processes.append(process)
    if processes:
        time.sleep(SAMPLE)
    for process in processes:
        with suppress(psutil.Error):
            used += process.cpu_percent() / 100
    return used
