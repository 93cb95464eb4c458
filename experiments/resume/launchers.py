"""One sweep with Hydra's basic launcher, joblib and Ray: equal results, and wall times.

One category has a broken image: the others finish, and the failure names it. Writes
``launchers.json``; exit status 1 if a result differs or a failure does not name the image.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from sweeping import folder, parse_options, results, start, sweep_overrides, write_proof

# Threads per process, and the overrides of the launcher.
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
    """Run four sweeps of 6 runs; 2 runs of each must fail."""
    options = parse_options(__doc__, epochs=1)
    root = with_broken_image(options.root, options.out / "data")
    overrides = sweep_overrides(options, seeds="0", root=root)
    exact: dict[str, dict[str, dict[str, str]]] = {}
    summary = {}
    for name, (threads, launcher) in LAUNCHERS.items():
        sweep = name.replace(", ", "-").replace(" ", "-")
        started = time.perf_counter()
        status = start(options.out, sweep, [*overrides, *launcher], threads).wait()
        seconds = time.perf_counter() - started
        exact[name] = results(options.out, sweep)
        failed = list(folder(options.out, sweep).glob("*/*/failure.json"))
        named = [BROKEN in json.loads(path.read_text())["error"] for path in failed]
        summary[name] = {
            "wall_s": round(seconds, 1),
            "exit_status": status,
            "complete": len(exact[name]),
            "failed": len(failed),
            "failures_name_the_image": all(named),
            "metrics_differ_by_at_most": largest_difference(
                exact["basic, one thread"], exact[name]
            ),
        }
    write_proof(options.out / "launchers.json", {"epochs": options.epochs, "launchers": summary})
    # Another number of threads rounds differently.
    same = [
        not summary[name]["metrics_differ_by_at_most"] for name in LAUNCHERS if "all" not in name
    ]
    return 0 if all(same) and all(as_expected(one) for one in summary.values()) else 1


def with_broken_image(root: Path, copy: Path) -> Path:
    """A copy of the data with one training image cut in half."""
    for category in ("bottle", "capsule", "pill"):
        shutil.copytree(root / category, copy / category, dirs_exist_ok=True)
    image = copy / BROKEN
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    return copy


def largest_difference(one: dict[str, dict[str, str]], other: dict[str, dict[str, str]]) -> float:
    """Largest difference of any metric; infinite if the runs differ."""
    if set(one) != set(other):
        return float("inf")
    pairs = [(json.loads(one[run]["metrics"]), json.loads(other[run]["metrics"])) for run in one]
    return max(abs(a[name] - b[name]) for a, b in pairs for name in a)


def as_expected(summary: dict[str, Any]) -> bool:
    """Whether only the runs with the broken image failed, and named it."""
    counts = (summary["exit_status"], summary["complete"], summary["failed"])
    return counts == (1, 4, 2) and bool(summary["failures_name_the_image"])


if __name__ == "__main__":
    sys.exit(main())
