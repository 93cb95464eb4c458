"""A run to a file that other runtimes take; it is only left if it gives what torch gives."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anomalib_rd.data.dataset import AnomalyDataset
from anomalib_rd.errors import UserError
from anomalib_rd.inference.checkpoint import Trained
from anomalib_rd.inference.detector import Network
from anomalib_rd.inference.graph import (
    WRITERS,
    Graph,
    fold,
    quantise,
    save_openvino,
    to_openvino,
    trace,
)
from anomalib_rd.inference.load import make_networks, make_scorer, make_tiling
from anomalib_rd.inference.runtimes import FORMATS, Metadata, open_model
from anomalib_rd.metrics.functional import image_metrics, pixel_metrics
from anomalib_rd.networks.teacher import state_sha256
from anomalib_rd.results.files import one_line
from anomalib_rd.scoring import ScoringOutput, score_images

TOLERANCE = 1e-3
"""Scores and maps of the file may differ from torch's by this; those of anomalies are near 1."""
BATCH = 3  # another one than the graph was traced with


class Parity(NamedTuple):
    """Largest absolute differences from torch in float32, and on how many images."""

    score: float
    map: float
    images: int


class Model(NamedTuple):
    """A run's networks ready to be exported, and what to say of them."""

    graph: Graph
    metadata: Metadata


def load_model(
    trained: Trained, teacher_weights: Path | str | None = None, other_teacher: bool = False
) -> Model:
    """The run's networks in float32, whatever it was trained in.

    Raises:
        UserError: the networks can't be had.
    """
    networks = make_networks(trained, teacher_weights, other_teacher).float().eval()
    config = trained.config
    height, width = config["data"]["image_size"]
    metadata = Metadata(
        run=config.get("name"),
        category=config["data"]["category"],
        image_size=(height, width),
        threshold=trained.threshold,
        map_scale=trained.map_scale,
        normalisation={
            "mean": networks.teacher.mean.flatten().tolist(),
            "std": networks.teacher.std.flatten().tolist(),
        },
        model={
            "name": config["model"].get("name"),
            "teacher": networks.teacher.name,
            "teacher_sha256": state_sha256(networks.teacher),
        },
        training=training_record(trained),
    )
    return Model(
        Graph(networks, make_scorer(trained), make_tiling(trained), (height, width)), metadata
    )


def training_record(trained: Trained) -> dict[str, Any]:
    """What is known of the training, from the checkpoint and the record beside it."""
    config, record = trained.config, trained.record or {}
    data, provenance = record.get("data") or {}, record.get("provenance") or {}
    git = provenance.get("git") or {}  # null outside of a repository
    return {
        "data": data.get("name"),
        "seed": config.get("seed"),
        "epochs": trained.epochs,
        "precision": str(config["trainer"].get("precision") or "32-true"),
        "checkpoint_sha256": trained.sha256,
        "teacher_sha256": trained.teacher_sha256,
        "metrics": record.get("metrics"),
        "data_fingerprint": data.get("fingerprint"),
        "commit": git.get("commit"),
        "software": provenance.get("software"),
    }


def export(model: Model, kind: str, path: Path, images: Tensor) -> Parity:
    """Write the file, if it gives on these images what torch gives.

    Args:
        model: its batch norms are folded here.
        kind: a name of ``FORMATS``.
        path: with the ending of the format; an older file is replaced.
        images: (N, 3, H, W) uint8, real ones.

    Raises:
        UserError: a package is missing, or scores or maps differ by more than ``TOLERANCE``;
            no file is left then.
    """
    expected = reference(model.graph, images)
    with beside(path) as file:
        WRITERS[kind](traced(model.graph), file, model.metadata)
        return parity(open_model(kind, file, "cpu").network, images, expected, path)


def export_int8(
    model: Model, path: Path, images: Tensor, normal: list[Tensor], test: AnomalyDataset
) -> tuple[Parity, Metadata]:
    """Write OpenVINO's file in int8, with what that costs in its metadata.

    Args:
        model: its batch norms are folded here.
        path: ends in ``.xml``.
        images: for the float32 graph, as for `export`.
        normal: (3, H, W) uint8 each; the training's, to calibrate.
        test: whose metrics are compared.

    Returns:
        Parity of the float32 graph, and the metadata of the file.

    Raises:
        UserError: as `export`.
    """
    expected = reference(model.graph, images)
    with beside(path) as file:
        whole = to_openvino(traced(model.graph), file)
        save_openvino(whole, file, model.metadata)
        network = open_model("openvino", file, "cpu").network
        found = parity(network, images, expected, path)
        exact = judged(network, test)
        small = quantise(whole, [one[None].numpy() for one in normal], path)
        save_openvino(small, file, replace(model.metadata, precision="int8"))
        rounded = judged(open_model("openvino", file, "cpu").network, test)
        facts = {
            "calibration_images": len(normal),
            "metrics": {name: [value, rounded[name]] for name, value in exact.items()},
        }
        metadata = replace(model.metadata, precision="int8", int8=facts)
        save_openvino(small, file, metadata)
    return found, metadata


def reference(graph: Graph, images: Tensor) -> ScoringOutput:
    """What torch gives, without anything that an export changes."""
    # Not inference_mode: the scorer keeps what it makes here, and the graph will have it.
    with torch.no_grad():
        parts = [
            score_images(batch, graph.networks, graph.scorer, graph.tiling)
            for batch in images.split(BATCH)
        ]
    return ScoringOutput(torch.cat([p.maps for p in parts]), torch.cat([p.scores for p in parts]))


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """The graph as exported: batch norms folded.

    Raises:
        UserError: it can't be traced.
    """
    fold(graph.networks)
    try:
        return trace(graph)
    except Exception as error:  # of networks from outside: torch raises what it likes
        raise UserError(
            f"the networks can't be exported: torch can't trace them ({one_line(error)[:160]})"
        ) from error


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place to write the file of this name, which is put in its own if nothing goes wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        yield Path(folder) / path.name
        # The file that names its weights comes last.
        for made in sorted(Path(folder).iterdir(), key=lambda one: one.suffix == path.suffix):
            shutil.move(made, path.with_name(made.name))


def parity(network: Network, images: Tensor, expected: ScoringOutput, path: Path) -> Parity:
    """How near the network comes to what torch gives.

    Raises:
        UserError: not near enough.
    """
    found = [network(batch.numpy()) for batch in images.split(BATCH)]
    maps = np.concatenate([maps for maps, _ in found]) - expected.maps.numpy()
    scores = np.concatenate([scores for _, scores in found]) - expected.scores.numpy()
    apart = Parity(float(np.abs(scores).max()), float(np.abs(maps).max()), len(images))
    if not max(apart.score, apart.map) <= TOLERANCE:  # also true of NaN
        raise UserError(
            f"{path}: not exported: on {apart.images} images its scores differ from torch's by up "
            f"to {apart.score:.2g} and its maps by {apart.map:.2g}, and {TOLERANCE:g} is allowed"
        )
    return apart


def judged(network: Network, test: AnomalyDataset) -> dict[str, float]:
    """``image_auroc``, and where all defects have masks ``pixel_auroc`` and ``aupro``."""
    items = [test[i] for i in range(len(test))]
    found = [network(item["image"][None].numpy()) for item in items]
    labels = torch.tensor([item["label"] for item in items])
    scores = torch.from_numpy(np.concatenate([scores for _, scores in found]))
    metrics = {"image_auroc": image_metrics(scores, labels)["image_auroc"]}
    if all(sample.mask is not None for sample in test.samples if sample.label):
        maps = torch.from_numpy(np.concatenate([maps for maps, _ in found]))
        pixels = pixel_metrics(maps, torch.stack([item["mask"] for item in items]))
        metrics |= {name: pixels[name] for name in ("pixel_auroc", "aupro")}
    return metrics


__all__ = ["FORMATS", "Model", "Parity", "export", "export_int8", "load_model"]
