"""Kill a sweep twice with SIGKILL, restart it, and compare it with an uninterrupted one.

Writes ``killed.json`` and ``runs.csv``; exit status 1 if a run was computed twice or differs.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
from sweeping import (
    OVERRIDES,
    count_runs,
    folder,
    parse_options,
    results,
    start,
    sweep_overrides,
    write_proof,
)

KILLS = [(2, 3), (7, 2)]  # number of complete runs, and the epoch of the next one


def main() -> int:
    """Run two sweeps of 12 runs, one of them killed twice."""
    options = parse_options(__doc__, epochs=6)
    # The default, 30 s, is about as long as one of these small runs.
    overrides = [*sweep_overrides(options, seeds="0,1"), "callbacks.checkpoint.every_s=5"]
    kills = [kill(options.out, overrides, complete, epoch) for complete, epoch in KILLS]
    before = record_stamps(options.out)
    last = start(options.out, "killed", overrides).wait()
    after = record_stamps(options.out)
    unchanged = [run for run, stamp in before.items() if after.get(run) == stamp]
    started = time.perf_counter()
    again = start(options.out, "killed", overrides).wait()
    skipping = time.perf_counter() - started
    status = start(options.out, "uninterrupted", overrides).wait()
    killed, expected = results(options.out, "killed"), results(options.out, "uninterrupted")
    different = [run for run in expected if killed.get(run) != expected[run]]
    sweeps = ("killed", "uninterrupted")
    tables = [(folder(options.out, sweep) / "means.csv").read_text() for sweep in sweeps]
    proof = {
        "command": "anomalib-rd train -m sweep=NAME seed=0,1 " + " ".join(OVERRIDES),
        "epochs": options.epochs,
        "at_each_kill": kills,
        "exit_status": {"after_the_kills": last, "once_more": again, "never_stopped": status},
        "complete_at_the_second_kill": len(before),
        "of_these_untouched_at_the_end": len(unchanged),
        "seconds_to_skip_all_runs": round(skipping, 1),
        "runs": len(expected),
        "runs_that_differ": different,
        "tables_equal": tables[0] == tables[1],
    }
    write_proof(options.out / "killed.json", proof)
    write_runs(options.out, killed)
    passed = not different and len(unchanged) == len(before) and tables[0] == tables[1]
    return 0 if passed and (last, again, status) == (0, 0, 0) else 1


def kill(out: Path, overrides: list[str], complete: int, epoch: int) -> dict[str, int]:
    """Start the sweep; kill it when `complete` runs are done and the next is past the epoch."""
    process, top = start(out, "killed", overrides), folder(out, "killed")
    while process.poll() is None:
        done = len(list(top.glob("*/*/result.json")))
        running = [json.loads(path.read_text()) for path in top.glob("*/*/running.json")]
        if done >= complete and max((r.get("epoch") or 0 for r in running), default=0) > epoch:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return count_runs(out, "killed")
        time.sleep(0.2)
    raise SystemExit(f"the sweep ended before it was killed: see {out}/killed.log")


def record_stamps(out: Path) -> dict[str, tuple[int, str]]:
    """Modification time and hash of the record of each complete run of the killed sweep."""
    return {
        str(path.parent): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder(out, "killed").glob("*/*/result.json")
    }


def write_runs(out: Path, killed: dict[str, dict[str, str]]) -> None:
    """Write the metrics of each run, and the epoch from which it resumed, if any."""
    rows = []
    for run, result in killed.items():
        record = json.loads((folder(out, "killed") / run / "result.json").read_text())
        epoch = record["protocol"]["resumed_from_epoch"]
        rows.append({"run": run, "resumed_from_epoch": epoch, **json.loads(result["metrics"])})
    table = pd.DataFrame(rows).astype({"resumed_from_epoch": "Int64"})
    table.to_csv(out / "runs.csv", index=False)


if __name__ == "__main__":
    sys.exit(main())
