"""CPU cores that this process may use: control groups, threads, other trainings."""

import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

log = logging.getLogger(__name__)


def own_groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, int]]:
    """The process's own control group and those above it, each with its version, 1 or 2.

    A limit may be set on any of them, as Slurm sets one on a job's step: the tightest counts. Where
    a container shows the paths of its host, which do not exist inside, its limit is at the top.

    Args:
        controller: such as ``cpu`` or ``memory``.
        root: of the file system, with ``proc/self/cgroup`` and ``sys/fs/cgroup``.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no such system
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


THREADS = "OMP_NUM_THREADS"
# Seconds: how long it is watched who computes, and how long a training takes to begin.
SAMPLE, YOUNG = 0.2, 30.0


def usable_cores(root: Path = Path("/")) -> int:
    """The cores that this process may run on, at most as many as its control groups allow.

    Args:
        root: of the file system in which the control groups are looked up.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, math.floor(cpu_quota(root))))


def cpu_quota(root: Path = Path("/")) -> float:
    """Cores' worth of time that containers and batch systems allow; a great number: no limit."""
    return min([1e9, *(_limit(group) for group, _ in own_groups("cpu", root))])


def _limit(group: Path) -> float:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):  # "max", or none is set
        return math.inf


def idle_cores() -> float:
    """How many of the cores that this process may run on have no work; takes `SAMPLE` seconds."""
    percents = psutil.cpu_percent(interval=SAMPLE, percpu=True)
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(percents))
    return sum(100 - percents[core] for core in own if core < len(percents)) / 100


def other_trainings() -> list[int]:
    """Numbers of other ``anomalib-rd train`` processes on this machine; no parents of this one."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid not in mine and is_training(process.info["cmdline"] or []):
            found.append(process.pid)
    return found


def is_training(command: list[str]) -> bool:
    """Whether a process's command line is that of ``anomalib-rd train``."""
    names = [Path(word).name for word in command]
    for program in ("anomalib-rd", "anomalib_rd"):
        if program in names[:4]:
            return "train" in names[names.index(program) + 1 :][:1]
    return False


def threads_of(pid: int) -> int | None:
    """Threads that a process computes with by its environment; None if it can't be looked at."""
    try:
        asked = psutil.Process(pid).environ().get(THREADS, "")
    except psutil.Error:
        return None
    return int(asked) if asked.isdecimal() else usable_cores()


def used_by(pids: Iterable[int]) -> float:
    """How many cores these processes use; takes `SAMPLE` seconds.

    One that has only just started counts with the threads that it will have.
    """
    watched, used = [], 0.0
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if time.time() - process.create_time() < YOUNG:
                used += threads_of(pid) or 0
            else:
                process.cpu_percent()
                watched.append(process)
    if watched:
        time.sleep(SAMPLE)
    for process in watched:
        with suppress(psutil.Error):
            used += process.cpu_percent() / 100
    return used


def limit_threads(accelerator: str) -> None:
    """Give torch no more threads than this process has cores; warn if others use them.

    ``OMP_NUM_THREADS``, which launchers set too, is left as it is.
    """
    import torch

    if os.environ.get(THREADS):
        return
    if torch.get_num_threads() > usable_cores():  # torch does not know a container's limit
        torch.set_num_threads(usable_cores())
    on_gpu = accelerator != "cpu" and torch.accelerator.is_available()
    if not on_gpu and torch.get_num_threads() > 1:
        warn_if_cores_busy(torch.get_num_threads())


@cache  # once in a process, however many runs it trains
def warn_if_cores_busy(threads: int) -> None:
    """Warn if the cores are too busy for this many threads, and name the way out."""
    usable, others = usable_cores(), other_trainings()
    idle = min(idle_cores(), usable - used_by(others))
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
        THREADS,
        share,
    )
