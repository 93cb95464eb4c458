"""Kills a run with SIGKILL again and again; started again it must end as if nothing had happened.

Half of the kills come in the middle of writing a file, half at random moments. Writes
``kills.json``; exit status 1 if a restart failed or differed, or a file was found half-written.
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
from killing import Place, start
from left import half_written, leaving

# What the children need, so that none of them has to import it.
import anomalib_rd.reports.dashboard
import anomalib_rd.reports.report
import anomalib_rd.training.run  # noqa: F401
from anomalib_rd.results.record import read_record

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from small_data import make_mvtec

# 6 training images of 64 x 64: two batches an epoch, a checkpoint after each.
WORDS = [
    *("train", "data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "trainer=cpu"),
    *("data.train_batch_size=4", "trainer.max_epochs=4", "callbacks.checkpoint.every_s=0"),
    *("data.num_workers=0", "logger=csv"),
]


def main() -> int:
    """A run never stopped, then those that are killed and started again."""
    given = options()
    torch.set_num_threads(1)  # another number rounds otherwise
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ["MVTEC_ROOT"] = str((given.out / "data").resolve())
    make_mvtec(given.out / "data", categories=("cloth",))
    notes, whole = given.out / "written.txt", given.out / "whole"
    before = sum(os.times()[2:4])
    if start(said(whole), given.out / "whole.log", notes=notes) != 0:
        raise SystemExit(f"the run itself failed: see {given.out / 'whole.log'}")
    seconds = sum(os.times()[2:4]) - before
    plans = plan(given, Counter(notes.read_text().split()), seconds)
    with ThreadPoolExecutor(given.jobs) as pool:
        kills = list(pool.map(lambda n: kill(given.out / f"run-{n:02}", whole, **plans[n]), plans))
    fine = [kill["equal"] and not kill["half_written"] for kill in kills]
    proof = {
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, torch {torch.__version__}",
        "command": f"anomalib-rd {' '.join(WORDS)}",
        "cpu_s_never_stopped": round(seconds, 1),
        "survived": f"{sum(fine)} of {len(kills)}",
        "kills": kills,
    }
    (given.out / "kills.json").write_text(json.dumps(proof, indent=2) + "\n")
    print(f"survived: {proof['survived']}")
    return 0 if all(fine) else 1


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of where to kill")
    parser.add_argument("--files", nargs="*", help="the files to kill in; by default all")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    return parser.parse_args()


def plan(
    given: argparse.Namespace, written: Counter[str], seconds: float
) -> dict[int, dict[str, Any]]:
    """Where to kill each run: in each of the kinds of file in turn, and between at moments."""
    draw, plans = random.Random(given.seed), {}
    pictures = [name for name in written if name.endswith(".png")]
    kinds = given.files or sorted({*written} - {*pictures[1:]})
    for number in range(given.kills):
        kind = kinds[number // 2 % len(kinds)]
        plans[number] = a_moment(draw, seconds) if number % 2 else a_place(draw, kind, written)
    return plans


def said(folder: Path) -> list[str]:
    """The command's words for a run in this folder."""
    return [*WORDS, f"hydra.run.dir={folder.resolve()}"]


def a_moment(draw: random.Random, seconds: float) -> dict[str, Any]:
    """Some time after the start, while the run never stopped was at work."""
    moment = draw.uniform(0, 0.95 * seconds)
    return {"where": f"after {moment:.2f} s of CPU time", "cpu_s": moment}


def a_place(draw: random.Random, name: str, written: Counter[str]) -> dict[str, Any]:
    """In one of the times that the file is written, after a random number of bytes."""
    byte = draw.choice([0, draw.randint(1, 500), draw.randint(501, 100_000), 10**9])
    place = Place(name, draw.randint(1, written[name]), byte)
    how_far = "written, not renamed" if byte == 10**9 else f"after {byte} bytes at most"
    return {"where": f"{name} (writing {place.nth} of {written[name]}), {how_far}", "place": place}


def kill(folder: Path, whole: Path, where: str, **plan: Any) -> dict[str, Any]:
    """Kill one run, look at what it left, start it again, and hold it against the whole one."""
    log = folder.with_suffix(".log")
    status = start(said(folder), log, **plan)
    half, complete = half_written(folder), (folder / "result.json").exists()
    again = start(said(folder), log)
    equal = again == 0 and leaving(folder) == leaving(whole)
    found = {
        "where": where,
        "killed": status == -9,  # or it had ended before
        "complete_when_killed": complete,
        "half_written": half,
        "exit_status_of_the_restart": again,
        "resumed_after_epoch": equal and read_record(folder)["protocol"]["resumed_from_epoch"],
        "temporary_files_at_the_end": [path.name for path in folder.rglob(".*.tmp")],
        "equal": equal,
    }
    if equal:
        shutil.rmtree(folder)
    print(json.dumps(found), flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
