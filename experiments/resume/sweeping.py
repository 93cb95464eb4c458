"""A sweep of three real categories as a process, and what it leaves; shared by the scripts here."""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

WORDS = [
    *("data=mvtec", "data.category=bottle,capsule,pill", "model=rd4ad,fmg_rd"),
    *("model/teacher=resnet18", "trainer=cpu", "data.image_size=[128,128]"),
]


def options(what: str | None, epochs: int) -> argparse.Namespace:
    """What the command line says: ``root, weights, out, epochs``."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--root", type=Path, required=True, help="MVTec AD, or these categories")
    parser.add_argument("--weights", required=True, help="ResNet18's, in torchvision's naming")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--epochs", type=int, default=epochs)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def words(given: argparse.Namespace, seeds: str, root: Path | None = None) -> list[str]:
    """The sweep's words after ``train -m``."""
    return [
        *(*WORDS, f"seed={seeds}", f"trainer.max_epochs={given.epochs}"),
        *(f"data.root={root or given.root}", f"model.teacher.weights={given.weights}"),
    ]


def start(
    out: Path, sweep: str, words: list[str], threads: int | None = None
) -> subprocess.Popen[bytes]:
    """The sweep's command in a process group of its own; what it says goes to ``<sweep>.log``.

    Args:
        out: folder of the log and, below ``multirun/``, of the sweep.
        sweep: its name.
        words: after ``train -m``.
        threads: of each process; None takes as many as there are cores.
    """
    more = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "anomalib_rd", "train", "-m", f"sweep={sweep}", *words]
    command += [f"hydra.sweep.dir={folder(out, sweep)}"]
    with (out / f"{sweep}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **more}
        )


def folder(out: Path, sweep: str) -> Path:
    """Where a sweep's runs are."""
    return (out / "multirun" / sweep).resolve()


def status(out: Path, sweep: str) -> dict[str, int]:
    """What ``anomalib-rd status`` counts."""
    command = [sys.executable, "-m", "anomalib_rd", "status", str(folder(out, sweep)), "--json"]
    said = subprocess.run(command, capture_output=True, check=False).stdout
    counted: dict[str, int] = json.loads(said)["totals"]
    return counted


def results(out: Path, sweep: str) -> dict[str, dict[str, str]]:
    """For each complete run its metrics and its images' scores, to the bit."""
    top = folder(out, sweep)
    return {
        path.parent.relative_to(top).as_posix(): {
            "metrics": json.dumps(json.loads(path.read_text())["metrics"]),
            "scores": (path.parent / "scores.csv").read_text(),
        }
        for path in sorted(top.glob("*/*/result.json"))
    }


def write(path: Path, proof: dict[str, Any]) -> None:
    """Print what was found, and keep it with the machine that it was found on."""
    machine = f"{os.cpu_count()} CPU cores, {platform.machine()}, torch {torch.__version__}"
    text = json.dumps({"machine": machine, **proof}, indent=2)
    path.write_text(text + "\n")
    print(text)
