"""``bench startup``: how long a command takes to say anything."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from anomalib_rd.bench.timing import interleaved

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    'python -c "import torch"': ["-c", "import torch"],
    "anomalib-rd --help": ["-m", "anomalib_rd", "--help"],
    "anomalib-rd train --cfg job": ["-m", "anomalib_rd", "train", "--cfg", "job"],
}
# Seconds, on any machine of these years.
TARGETS = {"anomalib-rd --help": 0.5, "anomalib-rd train --cfg job": 2.0}


def measure(rounds: int) -> dict[str, Any]:
    """Seconds of whole processes, in interleaved rounds.

    Returns:
        ``rounds`` and for each of ``contestants`` ``median_s``, ``min_s``, ``max_s`` and
        ``target_s`` (None for those that are shown for comparison).
    """
    timings = interleaved({name: process(words) for name, words in COMMANDS.items()}, rounds)
    return {
        "rounds": rounds,
        "contestants": {
            timing.name: {
                "median_s": timing.median,
                "min_s": min(timing.seconds),
                "max_s": max(timing.seconds),
                "target_s": TARGETS.get(timing.name),
            }
            for timing in timings
        },
    }


def process(words: list[str]) -> Callable[[], None]:
    """A call that runs Python with these words."""

    def run() -> None:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    return run
