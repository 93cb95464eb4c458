"""A sweep of three real categories as a process, and its results; shared by the scripts here."""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

OVERRIDES = [
    *("data=mvtec", "data.category=bottle,capsule,pill", "model=rd4ad,fmg_rd"),
    *("model/teacher=resnet18", "trainer=cpu", "data.image_size=[128,128]"),
]


def parse_options(description: str | None, epochs: int) -> argparse.Namespace:
    """Parse ``--root, --weights, --out, --epochs``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, required=True, help="MVTec AD, or these categories")
    parser.add_argument("--weights", required=True, help="ResNet18's, in torchvision's naming")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--epochs", type=int, default=epochs)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def sweep_overrides(options: argparse.Namespace, seeds: str, root: Path | None = None) -> list[str]:
    """The overrides of the sweep."""
    return [
        *(*OVERRIDES, f"seed={seeds}", f"trainer.max_epochs={options.epochs}"),
        *(f"data.root={root or options.root}", f"model.teacher.weights={options.weights}"),
    ]


def start(
    out: Path, sweep: str, overrides: list[str], threads: int | None = None
) -> subprocess.Popen[bytes]:
    """Start the sweep in its own process group, with output to ``<sweep>.log``.

    Args:
        out: folder of the log and, under ``multirun/``, of the sweep.
        sweep: its name.
        overrides: after ``train -m``.
        threads: per process; None: one per core.
    """
    variables = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "anomalib_rd", "train", "-m", f"sweep={sweep}", *overrides]
    command += [f"hydra.sweep.dir={folder(out, sweep)}"]
    with (out / f"{sweep}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **variables}
        )


def folder(out: Path, sweep: str) -> Path:
    """The folder of a sweep."""
    return (out / "multirun" / sweep).resolve()


def count_runs(out: Path, sweep: str) -> dict[str, int]:
    """Number of runs by state, from ``anomalib-rd status``."""
    command = [sys.executable, "-m", "anomalib_rd", "status", str(folder(out, sweep)), "--json"]
    output = subprocess.run(command, capture_output=True, check=False).stdout
    totals: dict[str, int] = json.loads(output)["totals"]
    return totals


def results(out: Path, sweep: str) -> dict[str, dict[str, str]]:
    """Exact metrics and image scores of each complete run."""
    top = folder(out, sweep)
    return {
        path.parent.relative_to(top).as_posix(): {
            "metrics": json.dumps(json.loads(path.read_text())["metrics"]),
            "scores": (path.parent / "scores.csv").read_text(),
        }
        for path in sorted(top.glob("*/*/result.json"))
    }


def write_proof(path: Path, proof: dict[str, Any]) -> None:
    """Print the results and write them, with the machine, to a file."""
    machine = f"{os.cpu_count()} CPU cores, {platform.machine()}, torch {torch.__version__}"
    text = json.dumps({"machine": machine, **proof}, indent=2)
    path.write_text(text + "\n")
    print(text)
