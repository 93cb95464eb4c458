"""Runs a multirun of many small runs in one process, and notes its memory after each.

Writes ``memory.csv`` (MiB of this process, and the processes that it has), ``memory.png`` and
``memory.json``; exit status 1 if memory grew by more than 5 % after the warm-up, or a process
was left behind.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from hydra.experimental.callback import Callback

HERE = Path(__file__).parent
WARM_UP, LIMIT = 5, 0.05
WORDS = [
    *("train", "-m", "data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "trainer=cpu"),
    *("data.num_workers=1", "speed.feature_cache=off", "trainer.max_epochs=1", "logger=csv"),
]


class Noted(Callback):
    """A row for each job of this process: its memory, and its child processes."""

    def __init__(self, into: str) -> None:
        self.into = into

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Hydra after each job, in the process that ran it."""
        process = psutil.Process()
        children = [child.name() for child in process.children(recursive=True)]
        row = [process.memory_info().rss / 2**20, process.num_threads(), " ".join(children)]
        with Path(self.into).open("a", newline="") as file:
            csv.writer(file).writerow(row)


def main() -> int:
    """The multirun as a process, and what its rows say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--runs", type=int, default=30)
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True)
    sys.path.append(str(HERE.parents[1] / "tests"))
    from small_data import make_mvtec

    make_mvtec(out / "data", categories=("cloth",))
    seeds = f"seed=range({given.runs})"
    noted = f"+hydra.callbacks.noted={{_target_: memory.Noted, into: {out / 'rows.csv'}}}"
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with (out / "sweep.log").open("ab") as log:
        sweep = subprocess.Popen(
            [sys.executable, "-m", "anomalib_rd", *WORDS, seeds, noted, f"hydra.sweep.dir={out}/s"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "MVTEC_ROOT": str(out / "data")},
        )
        status = sweep.wait()
    with (out / "rows.csv").open() as file:
        rows = list(csv.reader(file))
    memory = [float(row[0]) for row in rows]
    steady = memory[WARM_UP:]
    found = {
        "command": " ".join(["anomalib-rd", *WORDS, seeds]),
        "exit_status": status,
        "runs": len(rows),
        "after_the_first_run_MiB": round(memory[0]),
        f"after_run_{WARM_UP + 1}_MiB": round(steady[0]),
        "after_the_last_run_MiB": round(steady[-1]),
        "least_and_greatest_after_the_warm_up_MiB": [round(min(steady)), round(max(steady))],
        "growth_after_the_warm_up": round(steady[-1] / steady[0] - 1, 4),
        "threads_after_first_and_last": [int(rows[0][1]), int(rows[-1][1])],
        "children_after_a_run": sorted({row[2] for row in rows}),
        "left_behind": left_behind(sweep.pid),
    }
    (out / "memory.json").write_text(json.dumps(found, indent=2) + "\n")
    with (out / "memory.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [["run", "MiB"], *((n + 1, round(mib, 1)) for n, mib in enumerate(memory))]
        )
    draw(out / "memory.png", memory)
    print(json.dumps(found, indent=2))
    flat = max(steady) <= steady[0] * (1 + LIMIT)
    clean = found["children_after_a_run"] == [""] and not found["left_behind"]
    return 0 if flat and clean and status == 0 else 1


def left_behind(session: int) -> list[str]:
    """The processes of the multirun's session that live on."""
    left = []
    for process in psutil.process_iter(["name", "status"]):
        try:
            if os.getsid(process.pid) == session:
                left.append(process.info["name"])
        except ProcessLookupError:
            continue
    return left


def draw(path: Path, memory: list[float]) -> None:
    """The memory after each run, with the 5 % that it may grow by."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    base = memory[WARM_UP]
    last = len(memory)
    axes.fill_between(
        [WARM_UP + 1, last], base, base * (1 + LIMIT), color="0.9", label=f"up to {LIMIT:.0%} more"
    )
    axes.plot(range(1, last + 1), memory, marker=".", label="resident memory")
    axes.set(xlabel="runs in this process", ylabel="MiB", ylim=(0, None))
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
