"""One sweep by Hydra's own launcher, by joblib and by Ray: the same results, and the wall times.

In one of its categories an image is broken: the others finish, and the end names it. Writes
``launchers.json``; exit status 1 if a result differs or the broken run is not named.
"""

import json
import shutil
import sys
import time
from pathlib import Path

from sweeping import folder, options, results, start, words, write

# Threads of each process, and the words of the launcher.
LAUNCHERS: dict[str, tuple[int | None, list[str]]] = {
    "basic, one thread": (1, []),
    "basic, all cores": (None, []),
    "joblib, 2 processes": (1, ["hydra/launcher=parallel", "hydra.launcher.n_jobs=2"]),
    "ray, 2 workers": (
        1,
        [
            *("hydra/launcher=ray_gpus", "hydra.launcher.ray.init.num_cpus=2"),
            *("hydra.launcher.ray.remote.num_cpus=1", "hydra.launcher.ray.remote.num_gpus=0"),
        ],
    ),
}
BROKEN = "capsule/train/good/003.png"


def main() -> int:
    """Four sweeps of 6 runs, 2 of which fail."""
    given = options(__doc__, epochs=1)
    said = words(given, seeds="0", root=with_broken_image(given.root, given.out / "data"))
    found, shown = {}, {}
    for name, (threads, more) in LAUNCHERS.items():
        sweep = name.replace(", ", "-").replace(" ", "-")
        begun = time.perf_counter()
        status = start(given.out, sweep, [*said, *more], threads).wait()
        seconds = time.perf_counter() - begun
        found[name] = results(given.out, sweep)
        failed = list(folder(given.out, sweep).glob("*/*/failure.json"))
        named = [BROKEN in json.loads(path.read_text())["error"] for path in failed]
        shown[name] = {
            "wall_s": round(seconds, 1),
            "exit_status": status,
            "complete": len(found[name]),
            "failed": len(failed),
            "failures_name_the_image": all(named),
            "metrics_differ_by_at_most": most_different(found["basic, one thread"], found[name]),
        }
    write(given.out / "launchers.json", {"epochs": given.epochs, "launchers": shown})
    # Another number of threads rounds otherwise, and training carries that on.
    same = [not shown[name]["metrics_differ_by_at_most"] for name in LAUNCHERS if "all" not in name]
    return 0 if all(same) and all(fine(one) for one in shown.values()) else 1


def with_broken_image(root: Path, copy: Path) -> Path:
    """A copy of the data with one training image cut in half."""
    for category in ("bottle", "capsule", "pill"):
        shutil.copytree(root / category, copy / category, dirs_exist_ok=True)
    image = copy / BROKEN
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    return copy


def most_different(one: dict[str, dict[str, str]], other: dict[str, dict[str, str]]) -> float:
    """Greatest difference of any metric of any run; infinite if the runs are not the same."""
    if set(one) != set(other):
        return float("inf")
    pairs = [(json.loads(one[run]["metrics"]), json.loads(other[run]["metrics"])) for run in one]
    return max(abs(a[name] - b[name]) for a, b in pairs for name in a)


def fine(shown: dict[str, float]) -> bool:
    """Whether the broken image stayed what it is, and the rest went on."""
    right = shown["exit_status"] == 1 and shown["complete"] == 4 and shown["failed"] == 2
    return bool(right and shown["failures_name_the_image"])


if __name__ == "__main__":
    sys.exit(main())
