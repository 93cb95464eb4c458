"""Make all mutants of the metrics' code, test a sample, and list the survivors.

Writes ``mutants.json``. Uses the folder ``mutants`` of the checkout, like mutmut.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

TOP = Path(__file__).parents[2]
ANY_MUTANT = "anomalib_rd.metrics.ranking.x_why_undefined__mutmut_1"
# Exit status of pytest -> result of the mutant, as in mutmut.
OUTCOMES = {None: "not run", 0: "survived", 1: "killed", 3: "killed", 33: "no tests"}


def main() -> int:
    """Test a random sample of all mutants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    mutmut("run", ANY_MUTANT)  # makes all mutants, and finds the tests that reach each function
    names = sorted(outcomes())
    drawn = random.Random(options.seed).sample(names, min(options.sample, len(names)))
    mutmut("run", "--max-children", str(options.jobs), *drawn)
    status = outcomes()
    results = {name: OUTCOMES.get(status[name], "other") for name in drawn}
    survivors = sorted(name for name, outcome in results.items() if outcome == "survived")
    proof = {"mutants": len(names), "drawn": len(drawn), **Counter(results.values())}
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        proof | {"survivors": {name: changed_lines(name) for name in survivors}}, indent=2
    )
    (options.out / "mutants.json").write_text(text + "\n")
    print(text)
    return 0


def mutmut(*arguments: str) -> None:
    """Run mutmut in the checkout."""
    subprocess.run([Path(sys.executable).with_name("mutmut"), *arguments], cwd=TOP, check=True)


def outcomes() -> dict[str, int | None]:
    """Exit status of the tests per mutant; None if not run."""
    status: dict[str, int | None] = {}
    for path in (TOP / "mutants/anomalib_rd/metrics").glob("*.meta"):
        status |= json.loads(path.read_text())["exit_code_by_key"]
    return status


def changed_lines(name: str) -> list[str]:
    """The lines that the mutant changes, before and after."""
    command = [Path(sys.executable).with_name("mutmut"), "show", name]
    diff = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout
    lines = [line for line in diff.splitlines() if line[:1] in "+-"]
    return [line for line in lines if line[:3] not in ("+++", "---")]


if __name__ == "__main__":
    sys.exit(main())
