"""Kill runs with SIGKILL and restart them; each must end like an uninterrupted run.

Half of the kills come while a file is written, half at random times. Writes ``kills.json``; exit
status 1 if a restart failed or differed, or a file was half-written.
"""

import argparse
import json
import os
import platform
import random
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from killing import KillPoint, start
from outputs import exact_outputs, half_written

# Imported here once for all children.
import anomalib_rd.reports.page
import anomalib_rd.reports.report
import anomalib_rd.training.train  # noqa: F401
from anomalib_rd.results.record import read_record

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from small_data import make_mvtec

# 6 training images of 64 x 64: two batches per epoch, a checkpoint after each epoch.
ARGUMENTS = [
    *("train", "data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "trainer=cpu"),
    *("data.train_batch_size=4", "trainer.max_epochs=4", "callbacks.checkpoint.every_s=0"),
    *("data.num_workers=0", "logger=csv"),
]


def main() -> int:
    """Run once without interruption, then kill and restart runs."""
    options = parse_options()
    torch.set_num_threads(1)  # another number rounds differently
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["MVTEC_ROOT"] = str((options.out / "data").resolve())
    make_mvtec(options.out / "data", categories=("cloth",))
    write_log, reference = options.out / "written.txt", options.out / "uninterrupted"
    before = sum(os.times()[2:4])
    if start(command(reference), options.out / "uninterrupted.log", write_log=write_log) != 0:
        raise SystemExit(f"the uninterrupted run failed: see {options.out / 'uninterrupted.log'}")
    seconds = sum(os.times()[2:4]) - before
    plans = plan(options, Counter(write_log.read_text().split()), seconds)
    with ThreadPoolExecutor(options.jobs) as pool:
        kills = list(
            pool.map(lambda n: kill(options.out / f"run-{n:02}", reference, **plans[n]), plans)
        )
    passed = [kill["equal"] and not kill["half_written"] for kill in kills]
    proof = {
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, torch {torch.__version__}",
        "command": f"anomalib-rd {' '.join(ARGUMENTS)}",
        "cpu_s_never_stopped": round(seconds, 1),
        "survived": f"{sum(passed)} of {len(kills)}",
        "kills": kills,
    }
    (options.out / "kills.json").write_text(json.dumps(proof, indent=2) + "\n")
    print(f"survived: {proof['survived']}")
    return 0 if all(passed) else 1


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the kill points")
    parser.add_argument("--files", nargs="*", help="kill while these are written; default all")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    return parser.parse_args()


def plan(
    options: argparse.Namespace, written: Counter[str], seconds: float
) -> dict[int, dict[str, Any]]:
    """When to kill each run, in turn: while a file (each kind in turn) is written, or at a time."""
    draw, plans = random.Random(options.seed), {}
    pictures = [name for name in written if name.endswith(".png")]
    kinds = options.files or sorted({*written} - {*pictures[1:]})
    for number in range(options.kills):
        kind = kinds[number // 2 % len(kinds)]
        plans[number] = (
            random_time(draw, seconds) if number % 2 else random_kill_point(draw, kind, written)
        )
    return plans


def command(folder: Path) -> list[str]:
    """Arguments of a run in this folder."""
    return [*ARGUMENTS, f"hydra.run.dir={folder.resolve()}"]


def random_time(draw: random.Random, seconds: float) -> dict[str, Any]:
    """A time within the duration of the uninterrupted run."""
    moment = draw.uniform(0, 0.95 * seconds)
    return {"where": f"after {moment:.2f} s of CPU time", "cpu_s": moment}


def random_kill_point(draw: random.Random, name: str, written: Counter[str]) -> dict[str, Any]:
    """While the file is written, after a random number of bytes."""
    byte = draw.choice([0, draw.randint(1, 500), draw.randint(501, 100_000), 10**9])
    point = KillPoint(name, draw.randint(1, written[name]), byte)
    progress = "written, not renamed" if byte == 10**9 else f"after {byte} bytes at most"
    return {
        "where": f"{name} (writing {point.nth} of {written[name]}), {progress}",
        "kill_point": point,
    }


def kill(folder: Path, reference: Path, where: str, **plan: Any) -> dict[str, Any]:
    """Kill one run, check its files, restart it, and compare it with the uninterrupted one."""
    log = folder.with_suffix(".log")
    status = start(command(folder), log, **plan)
    half, complete = half_written(folder), (folder / "result.json").exists()
    again = start(command(folder), log)
    equal = again == 0 and exact_outputs(folder) == exact_outputs(reference)
    result = {
        "where": where,
        "killed": status == -9,  # otherwise it had already ended
        "complete_when_killed": complete,
        "half_written": half,
        "exit_status_of_the_restart": again,
        "resumed_after_epoch": equal and read_record(folder)["protocol"]["resumed_from_epoch"],
        "temporary_files_at_the_end": [path.name for path in folder.rglob(".*.tmp")],
        "equal": equal,
    }
    if equal:
        shutil.rmtree(folder)
    print(json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
