"""Shared by all benches: interleaved timing, peak memory, facts about the machine."""

import ctypes
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import track

from anomalib_rd.results.provenance import collect_provenance

PROCESS = Path("/proc/self")


class Timing(NamedTuple):
    """Seconds of each round of one contestant."""

    name: str
    seconds: list[float]

    @property
    def summary(self) -> dict[str, float]:
        """``median_s``, ``min_s`` and ``max_s`` of the rounds."""
        return {
            "median_s": statistics.median(self.seconds),
            "min_s": min(self.seconds),
            "max_s": max(self.seconds),
        }


def interleaved(contestants: dict[str, Callable[[], object]], rounds: int) -> list[Timing]:
    """Time each contestant once per round, after a warm-up round: other load slows all equally."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in track(range(rounds + 1), description="rounds", transient=True):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return [Timing(name, taken) for name, taken in seconds.items()]


def peak_rss() -> int:
    """Peak resident memory of this process in bytes, since its start or `reset_peak_rss`."""
    try:
        lines = (PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_rss() -> bool:
    """Reset the peak; False if the system does not support it (only Linux does)."""
    try:
        # Freed but unreturned memory would count for the next contestant.
        ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True


def machine(cuda: bool) -> dict[str, Any]:
    """``machine``, one line for titles, and ``provenance`` with torch's settings.

    Args:
        cuda: whether the work runs on the current CUDA device.
    """
    import torch

    facts = collect_provenance(torch.cuda.get_device_name() if cuda else None)
    hardware = facts["hardware"]
    device = hardware["accelerator"] or f"{hardware['cpu']}, {torch.get_num_threads()} threads"
    facts["torch"] = {
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if cuda else None,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32 if cuda else None,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32 if cuda else None,
    }
    return {"machine": f"{device}, torch {torch.__version__}", "provenance": facts}
