"""Outputs of a run: their exact values, and whether each file is intact."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from anomalib_rd.results.record import read_record, read_scores


def exact_outputs(folder: Path) -> dict[str, Any]:
    """Metrics, losses, scores and weights of a complete run, to the bit."""
    weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    record = read_record(folder)
    return {
        "metrics": record["metrics"],
        "losses": record["loss_curve"],
        "scores": (folder / "scores.csv").read_bytes(),
        "weights": {name: value.numpy().tobytes() for name, value in weights.items()},
    }


def half_written(folder: Path) -> list[str]:
    """The files, except temporary ones, that cannot be read, with the reason."""
    bad = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(".tmp"):
            try:
                read(path)
            except Exception as error:
                bad.append(f"{path.relative_to(folder)}: {error}")
    return bad


def read(path: Path) -> None:
    """Read a file completely; raises the error of its reader."""
    kind = path.suffix
    if path.name == "scores.csv":
        read_scores(path.parent)
    elif kind == ".json":
        json.loads(path.read_text())
    elif kind == ".ckpt":
        torch.load(path, weights_only=True)
    elif kind == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                archive[name].sum()
    elif kind == ".zip":
        if (broken := zipfile.ZipFile(path).testzip()) is not None:
            raise ValueError(f"its member {broken} is damaged")
    elif kind == ".png":
        Image.open(path, formats=["PNG"]).load()
    elif kind == ".html" and not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("its end is missing")
