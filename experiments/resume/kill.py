"""Kills a sweep twice with SIGKILL, starts it again, and holds it against one never stopped.

Writes ``killed.json`` and ``runs.csv``; exit status 1 if a run was computed twice or differs.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from sweeping import WORDS, folder, options, results, start, status, words, write

KILLS = [(2, 3), (7, 2)]  # after so many complete runs, in the epoch after this one


def main() -> int:
    """The whole proof: two sweeps of 12 runs."""
    given = options(__doc__, epochs=6)
    # The default, 30 s, is about as long as one of these small runs.
    said = [*words(given, seeds="0,1"), "callbacks.checkpoint.every_s=5"]
    kills = [kill(given.out, said, complete, epoch) for complete, epoch in KILLS]
    before = stamps(given.out)
    last = start(given.out, "killed", said).wait()
    kept = [run for run, stamp in before.items() if stamps(given.out).get(run) == stamp]
    begun = time.perf_counter()
    again = start(given.out, "killed", said).wait()
    skipping = time.perf_counter() - begun
    whole = start(given.out, "whole", said).wait()
    killed, never = results(given.out, "killed"), results(given.out, "whole")
    different = [run for run in never if killed.get(run) != never[run]]
    tables = [(folder(given.out, s) / "means.csv").read_text() for s in ("killed", "whole")]
    proof = {
        "command": "anomalib-rd train -m sweep=NAME seed=0,1 " + " ".join(WORDS),
        "epochs": given.epochs,
        "at_each_kill": kills,
        "exit_status": {"after_the_kills": last, "once_more": again, "never_stopped": whole},
        "complete_at_the_second_kill": len(before),
        "of_these_untouched_at_the_end": len(kept),
        "seconds_to_skip_all_runs": round(skipping, 1),
        "runs": len(never),
        "runs_that_differ": different,
        "tables_equal": tables[0] == tables[1],
    }
    write(given.out / "killed.json", proof)
    write_runs(given.out, killed)
    fine = not different and len(kept) == len(before) and tables[0] == tables[1]
    return 0 if fine and (last, again, whole) == (0, 0, 0) else 1


def kill(out: Path, said: list[str], complete: int, epoch: int) -> dict[str, int]:
    """Start the sweep, and kill it with so many runs complete and the next past an epoch."""
    process = start(out, "killed", said)
    wait_until(folder(out, "killed"), process, complete, epoch)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return status(out, "killed")


def wait_until(top: Path, process: subprocess.Popen[bytes], complete: int, epoch: int) -> None:
    """Until so many runs are complete and the one that is running is past an epoch."""
    while process.poll() is None:
        done = len(list(top.glob("*/*/result.json")))
        running = [json.loads(path.read_text()) for path in top.glob("*/*/running.json")]
        if done >= complete and max((r.get("epoch") or 0 for r in running), default=0) > epoch:
            return
        time.sleep(0.2)
    raise SystemExit(f"the sweep ended before it was killed: see {top.parent.parent}/killed.log")


def stamps(out: Path) -> dict[str, tuple[int, str]]:
    """For each complete run of the killed sweep the time and hash of its record."""
    return {
        str(path.parent): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder(out, "killed").glob("*/*/result.json")
    }


def write_runs(out: Path, killed: dict[str, dict[str, str]]) -> None:
    """The metrics of each run, and the epoch that it was taken up from, if it was cut off."""
    rows = []
    for run, found in killed.items():
        record = json.loads((folder(out, "killed") / run / "result.json").read_text())
        epoch = record["protocol"]["resumed_from_epoch"]
        rows.append({"run": run, "resumed_from_epoch": epoch, **json.loads(found["metrics"])})
    table = pd.DataFrame(rows).astype({"resumed_from_epoch": "Int64"})
    table.to_csv(out / "runs.csv", index=False)


if __name__ == "__main__":
    sys.exit(main())
