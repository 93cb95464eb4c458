"""Interleaved timing: what drifts on a shared machine drifts for all contestants."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.progress import track


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant's rounds."""

    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        """Median of the rounds, in seconds."""
        return statistics.median(self.seconds)


def interleaved(contestants: dict[str, Callable[[], object]], rounds: int) -> list[Timing]:
    """Time each contestant once a round, after one round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in track(range(rounds + 1), description="rounds", transient=True):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return [Timing(name, taken) for name, taken in seconds.items()]
