"""Compare a run in torch, ONNX Runtime and OpenVINO: score differences, AUROC, images/s.

    anomalib-rd export RUN format=onnx
    anomalib-rd export RUN format=openvino
    anomalib-rd export RUN format=openvino --int8
    python -m experiments.deploy.compare RUN FOLDER

Measures from image files to maps and scores in memory, with one CPU thread per network. Writes
``FOLDER/comparison.json`` and ``FOLDER/comparison.csv``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from anomalib_rd import load_exported, load_run
from anomalib_rd.cli.config import register_resolvers
from anomalib_rd.cli.export import FOLDER, load_data
from anomalib_rd.data import read_image
from anomalib_rd.inference.detector import Detector
from anomalib_rd.inference.load import make_networks, make_scorer, read_run
from anomalib_rd.metrics.functional import image_metrics, pixel_metrics
from anomalib_rd.results.files import to_json_types, write_json
from experiments.speed.bench.measuring import machine
from experiments.speed.bench.plain_loop import plain_scoring

Predictor = Callable[[list[Path]], tuple[np.ndarray, np.ndarray]]  # files -> maps, scores


def make_contestants(run: Path, batch_size: int) -> dict[str, Predictor]:
    """The contestants; the first is the baseline."""
    trained = read_run(run)
    networks, scorer = make_networks(trained).eval(), make_scorer(trained)
    height, width = trained.config["data"]["image_size"]
    score = plain_scoring(networks, scorer, torch.device("cpu"))

    def plain_loop(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        outputs = [score(read_image(file, (height, width))[None]) for file in files]
        return np.concatenate([m for m, _ in outputs]), np.concatenate([s for _, s in outputs])

    def predict_with(detector: Detector) -> Predictor:
        def predict(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
            predictions = list(detector.many(files, batch_size))
            maps = np.stack([prediction.anomaly_map for prediction in predictions])
            return maps, np.array([prediction.score for prediction in predictions])

        return predict

    exported = run / FOLDER / str(trained.config["name"])
    xml, int8 = exported.with_suffix(".xml"), exported.with_name(f"{exported.name}-int8.xml")
    one_thread = {"device": "cpu", "threads": 1}
    detectors = {
        "torch": load_run(run, device="cpu", precision="32-true"),
        "torch, bf16": load_run(run, device="cpu", precision="bf16-mixed"),
        "ONNX Runtime": load_exported(exported.with_suffix(".onnx"), **one_thread),
        "OpenVINO": load_exported(xml, **one_thread),
        "OpenVINO, bf16": load_exported(xml, precision="bf16-true", **one_thread),
        "OpenVINO, int8": load_exported(int8, **one_thread),
    }
    predictors = {f"predict, {name}": predict_with(d) for name, d in detectors.items()}
    return {"plain torch loop, batch 1": plain_loop, **predictors}


def accuracy(
    maps: np.ndarray, scores: np.ndarray, first: np.ndarray, labels: Tensor, masks: Tensor
) -> dict[str, float]:
    """Metrics, and the largest score difference from the first contestant."""
    pixels = pixel_metrics(torch.from_numpy(maps), masks)
    return {
        "score_difference": float(np.abs(scores - first).max()),
        "image_auroc": image_metrics(torch.from_numpy(scores), labels)["image_auroc"],
        "pixel_auroc": pixels["pixel_auroc"],
        "aupro": pixels["aupro"],
    }


def main() -> None:
    """Compare, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--timed", type=int, default=32, help="images per round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    register_resolvers()
    data = load_data(read_run(options.run), [], trust=False)
    contestants = make_contestants(options.run, data.test_batch_size)
    items = [data.test_set[i] for i in range(len(data.test_set))]
    labels = torch.tensor([item["label"] for item in items])
    masks = torch.stack([item["mask"] for item in items])
    files = [sample.path for sample in data.split.test]
    rows: dict[str, dict[str, float]] = {}
    first: np.ndarray | None = None
    for name, predict in contestants.items():  # also warms up
        maps, scores = predict(files)
        first = scores if first is None else first
        rows[name] = accuracy(maps, scores, first, labels, masks)
    cpu_seconds: dict[str, list[float]] = {name: [] for name in contestants}
    step = max(1, len(files) // options.timed)
    timed = files[::step][: options.timed]
    for _ in track(range(options.rounds), "rounds"):
        for name, predict in contestants.items():
            start = time.process_time()  # of this process: other load does not count
            predict(timed)
            cpu_seconds[name].append(time.process_time() - start)
    base = next(iter(cpu_seconds.values()))
    for name, seconds in cpu_seconds.items():
        ratios = [b / s for b, s in zip(base, seconds, strict=True)]
        rows[name] |= {
            "images_per_cpu_s": len(timed) / statistics.median(seconds),
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    print(table.to_string())
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "comparison.csv", index_label="contestant", float_format="%.6g")
    facts = {"images": len(files), "timed": len(timed), "rounds": options.rounds, "threads": 1}
    record = {**machine(cuda=False), **facts, "contestants": rows, "cpu_seconds": cpu_seconds}
    write_json(options.out / "comparison.json", to_json_types(record))


if __name__ == "__main__":
    main()
