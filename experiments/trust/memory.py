"""Run a multirun of many small runs in one process, and record its memory after each.

Writes ``memory.csv`` (MiB after each run), ``memory.png`` and ``memory.json``; exit status 1 if
memory grew by more than 5 % after the warm-up, or a process stayed alive.
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
ARGUMENTS = [
    *("train", "-m", "data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "trainer=cpu"),
    *("data.num_workers=1", "speed.feature_cache=off", "trainer.max_epochs=1", "logger=csv"),
]


class MemoryLog(Callback):
    """Appends memory, threads and child processes of this process to a file after each job."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Append a row."""
        process = psutil.Process()
        children = [child.name() for child in process.children(recursive=True)]
        row = [process.memory_info().rss / 2**20, process.num_threads(), " ".join(children)]
        with Path(self.file).open("a", newline="") as stream:
            csv.writer(stream).writerow(row)


def main() -> int:
    """Run the multirun in a child process and check its memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True)
    sys.path.append(str(HERE.parents[1] / "tests"))
    from small_data import make_mvtec

    make_mvtec(out / "data", categories=("cloth",))
    seeds = f"seed=range({options.runs})"
    callback = f"+hydra.callbacks.memory={{_target_: memory.MemoryLog, file: {out / 'rows.csv'}}}"
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with (out / "sweep.log").open("ab") as log:
        program = [sys.executable, "-m", "anomalib_rd"]
        sweep = subprocess.Popen(
            [*program, *ARGUMENTS, seeds, callback, f"hydra.sweep.dir={out}/s"],
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
    result = {
        "command": " ".join(["anomalib-rd", *ARGUMENTS, seeds]),
        "exit_status": status,
        "runs": len(rows),
        "after_the_first_run_MiB": round(memory[0]),
        f"after_run_{WARM_UP + 1}_MiB": round(steady[0]),
        "after_the_last_run_MiB": round(steady[-1]),
        "least_and_greatest_after_the_warm_up_MiB": [round(min(steady)), round(max(steady))],
        "growth_after_the_warm_up": round(steady[-1] / steady[0] - 1, 4),
        "threads_after_first_and_last": [int(rows[0][1]), int(rows[-1][1])],
        "children_after_a_run": sorted({row[2] for row in rows}),
        "left_behind": running_processes(sweep.pid),
    }
    (out / "memory.json").write_text(json.dumps(result, indent=2) + "\n")
    with (out / "memory.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [["run", "MiB"], *((n + 1, round(mib, 1)) for n, mib in enumerate(memory))]
        )
    draw(out / "memory.png", memory)
    print(json.dumps(result, indent=2))
    flat = max(steady) <= steady[0] * (1 + LIMIT)
    clean = result["children_after_a_run"] == [""] and not result["left_behind"]
    return 0 if flat and clean and status == 0 else 1


def running_processes(session: int) -> list[str]:
    """Names of the session's processes that are still alive."""
    names = []
    for process in psutil.process_iter(["name", "status"]):
        try:
            if os.getsid(process.pid) == session:
                names.append(process.info["name"])
        except ProcessLookupError:
            continue
    return names


def draw(path: Path, memory: list[float]) -> None:
    """Plot the memory after each run, with the allowed growth of 5 %."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    base, last = memory[WARM_UP], len(memory)
    axes.fill_between(
        [WARM_UP + 1, last], base, base * (1 + LIMIT), color="0.9", label=f"up to {LIMIT:.0%} more"
    )
    axes.plot(range(1, last + 1), memory, marker=".", label="resident memory")
    axes.set(xlabel="runs in this process", ylabel="MiB", ylim=(0, None))
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
