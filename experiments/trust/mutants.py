"""Makes all mutants of the metrics' code, tests a sample of them, and lists those that survived.

Writes ``mutants.json``. Works in the folder ``mutants`` of the checkout, as mutmut does.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

TOP = Path(__file__).parents[2]
ONE = "anomalib_rd.metrics.ranking.x_why_undefined__mutmut_1"
# pytest's exit status by which mutmut knows what became of a mutant.
OUTCOMES = {None: "not run", 0: "survived", 1: "killed", 3: "killed", 33: "no tests"}


def main() -> int:
    """A sample, drawn evenly from all mutants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    mutmut("run", ONE)  # makes all of them, and learns which tests reach which function
    names = sorted(outcomes())
    drawn = random.Random(given.seed).sample(names, min(given.sample, len(names)))
    mutmut("run", "--max-children", str(given.jobs), *drawn)
    status = outcomes()
    found = {name: OUTCOMES.get(status[name], "other") for name in drawn}
    survivors = sorted(name for name, outcome in found.items() if outcome == "survived")
    proof = {"mutants": len(names), "drawn": len(drawn), **Counter(found.values())}
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(proof | {"survivors": {name: shown(name) for name in survivors}}, indent=2)
    (given.out / "mutants.json").write_text(text + "\n")
    print(text)
    return 0


def mutmut(*words: str) -> None:
    """Run mutmut in the checkout."""
    subprocess.run([Path(sys.executable).with_name("mutmut"), *words], cwd=TOP, check=True)


def outcomes() -> dict[str, int | None]:
    """The exit status of the tests for each mutant; None before they were run."""
    found: dict[str, int | None] = {}
    for path in (TOP / "mutants/anomalib_rd/metrics").glob("*.meta"):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def shown(name: str) -> list[str]:
    """The lines that the mutant changes, before and after."""
    command = [Path(sys.executable).with_name("mutmut"), "show", name]
    said = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout
    lines = [line for line in said.splitlines() if line[:1] in "+-"]
    return [line for line in lines if line[:3] not in ("+++", "---")]


if __name__ == "__main__":
    sys.exit(main())
