"""Export a run to ONNX, OpenVINO or torch; the file is written only if it agrees with torch."""

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from anomalib_rd.data.dataset import AnomalyDataset
from anomalib_rd.errors import UserError
from anomalib_rd.inference.detector import Network
from anomalib_rd.inference.devices import FLOAT32
from anomalib_rd.inference.load import (
    TrainedRun,
    fold_batch_norms,
    make_networks,
    make_scorer,
    make_tiling,
)
from anomalib_rd.inference.runtimes import (
    IMAGE,
    KEY,
    MAP,
    SCORE,
    Metadata,
    import_runtime,
    open_model,
)
from anomalib_rd.metrics.functional import image_metrics, pixel_metrics
from anomalib_rd.networks import Distiller
from anomalib_rd.networks.teacher import state_sha256
from anomalib_rd.results.files import one_line, sha256_file
from anomalib_rd.scoring import AnomalyScorer, ScoringOutput, Tiling, score_images

TOLERANCE = 1e-3
"""Allowed difference of scores and maps from torch's; anomalies score near 1."""
BATCH = 3  # differs from the batch size of the traced example


class Parity(NamedTuple):
    """Largest absolute differences from torch in float32, and the number of images."""

    score: float
    map: float
    images: int


class Graph(nn.Module):
    """Networks and scoring of a run as one model.

    Args:
        networks: in eval mode.
        scorer: features -> maps and scores.
        tiling: of the run; all tiles of the images are processed as one batch.
        image_size: (H, W) of the images.
    """

    def __init__(
        self,
        networks: Distiller,
        scorer: AnomalyScorer,
        tiling: Tiling,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.networks, self.scorer, self.image_size = networks, scorer, image_size
        self.tiling = Tiling(tiling.size, tiling.overlap, batch_size=None)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, H, W) and scores (B,), float32, of images (B, 3, H, W) uint8."""
        maps, scores = score_images(image, self.networks, self.scorer, self.tiling)
        return maps, scores


class Model(NamedTuple):
    """A run's graph, ready for export, and its metadata."""

    graph: Graph
    metadata: Metadata


def load_model(
    trained: TrainedRun, teacher_weights: Path | str | None = None, other_teacher: bool = False
) -> Model:
    """The run's networks in float32, whatever precision it was trained in.

    Raises:
        UserError: see `anomalib_rd.inference.load.make_networks`.
    """
    networks = make_networks(trained, teacher_weights, other_teacher).float().eval()
    teacher, config, record = networks.teacher, trained.config, trained.record or {}
    data, provenance = record.get("data") or {}, record.get("provenance") or {}
    git = provenance.get("git") or {}  # null outside of a repository
    height, width = config["data"]["image_size"]
    metadata = Metadata(
        run=config.get("name"),
        category=config["data"]["category"],
        image_size=(height, width),
        threshold=trained.threshold,
        map_scale=trained.map_scale,
        normalisation={
            "mean": teacher.mean.flatten().tolist(),
            "std": teacher.std.flatten().tolist(),
        },
        model={
            "name": config["model"].get("name"),
            "teacher": teacher.name,
            "teacher_sha256": state_sha256(teacher),
        },
        training={
            "data": data.get("name"),
            "seed": config.get("seed"),
            "epochs": trained.epochs,
            "precision": str(config["trainer"].get("precision") or FLOAT32),
            "checkpoint_sha256": trained.sha256,
            "teacher_sha256": trained.teacher_sha256,
            "metrics": record.get("metrics"),
            "data_fingerprint": data.get("fingerprint"),
            "commit": git.get("commit"),
            "software": provenance.get("software"),
        },
    )
    graph = Graph(networks, make_scorer(trained), make_tiling(trained), metadata.image_size)
    return Model(graph, metadata)


def export(model: Model, kind: str, path: Path, images: Tensor) -> Parity:
    """Write the file if its results on these images equal torch's.

    Args:
        model: its batch norms are folded in place.
        kind: a key of ``FORMATS``.
        path: with the suffix of the format; an older file is replaced.
        images: (N, 3, H, W) uint8, real ones.

    Raises:
        UserError: a package is missing, or scores or maps differ by more than ``TOLERANCE``.
    """
    expected = torch_output(model.graph, images)
    with temporary_file(path) as file:
        WRITERS[kind](trace(model.graph), file, model.metadata)
        return check_parity(open_model(kind, file, "cpu").network, images, expected, path)


def export_int8(
    model: Model, path: Path, images: Tensor, normal: list[Tensor], test: AnomalyDataset
) -> tuple[Parity, Metadata]:
    """Write OpenVINO's file in int8, with the metrics of both precisions in its metadata.

    Args:
        model: its batch norms are folded in place.
        path: ends in ``.xml``.
        images: to check the float32 graph, as in `export`.
        normal: (3, H, W) uint8 each, training images for calibration.
        test: images of the metrics.

    Returns:
        Parity of the float32 graph, and the metadata of the file.

    Raises:
        UserError: see `export`.
    """
    expected = torch_output(model.graph, images)
    with temporary_file(path) as file:
        float_model = to_openvino(trace(model.graph), file)
        save_openvino(float_model, file, model.metadata)
        network = open_model("openvino", file, "cpu").network
        parity = check_parity(network, images, expected, path)
        float_metrics = evaluate_network(network, test)
        int8_model = quantise(float_model, [image[None].numpy() for image in normal], path)
        save_openvino(int8_model, file, replace(model.metadata, precision="int8"))
        int8_metrics = evaluate_network(open_model("openvino", file, "cpu").network, test)
        facts = {
            "calibration_images": len(normal),
            "metrics": {name: [value, int8_metrics[name]] for name, value in float_metrics.items()},
        }
        metadata = replace(model.metadata, precision="int8", int8=facts)
        save_openvino(int8_model, file, metadata)
    return parity, metadata


def torch_output(graph: Graph, images: Tensor) -> ScoringOutput:
    """Maps and scores of the graph in torch, in batches."""
    # Not inference_mode: the scorer caches tensors here that become part of the graph.
    with torch.no_grad():
        outputs = [graph(batch) for batch in images.split(BATCH)]
    maps, scores = zip(*outputs, strict=True)
    return ScoringOutput(torch.cat(maps), torch.cat(scores))


def trace(graph: Graph) -> ExportedProgram:
    """Trace the graph for any batch size, on the CPU, with batch norms folded.

    Raises:
        UserError: torch can't trace it.
    """
    fold_batch_norms(graph.networks)
    example = torch.zeros(2, 3, *graph.image_size, dtype=torch.uint8)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    try:
        with torch.no_grad(), silence_exporters():
            # Fill the caches of scorer and masking, whose tensors become constants.
            graph(example)
            program = torch.export.export(graph, (example,), dynamic_shapes=shapes)
    except Exception as error:  # of the user's own networks: torch may raise anything
        raise UserError(
            f"the networks can't be exported: torch can't trace them ({one_line(error)[:160]})"
        ) from error
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # contains paths of this machine
    return program


def check_parity(network: Network, images: Tensor, expected: ScoringOutput, path: Path) -> Parity:
    """Differences of a network's maps and scores from torch's.

    Raises:
        UserError: larger than ``TOLERANCE``.
    """
    outputs = [network(batch.numpy()) for batch in images.split(BATCH)]
    maps, scores = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    parity = Parity(
        float(np.abs(scores - expected.scores.numpy()).max()),
        float(np.abs(maps - expected.maps.numpy()).max()),
        len(images),
    )
    if not max(parity.score, parity.map) <= TOLERANCE:  # also true of NaN
        raise UserError(
            f"{path}: not exported: on {parity.images} images its scores differ from torch's by up "
            f"to {parity.score:.2g} and its maps by {parity.map:.2g}; {TOLERANCE:g} is allowed"
        )
    return parity


def evaluate_network(network: Network, test: AnomalyDataset) -> dict[str, float]:
    """``image_auroc``, and ``pixel_auroc`` and ``aupro`` if all defects have masks."""
    items = [test[i] for i in range(len(test))]
    outputs = [network(item["image"][None].numpy()) for item in items]
    maps, scores = (torch.from_numpy(np.concatenate(p)) for p in zip(*outputs, strict=True))
    labels = torch.tensor([item["label"] for item in items])
    metrics = {"image_auroc": image_metrics(scores, labels)["image_auroc"]}
    if all(sample.mask is not None for sample in test.samples if sample.label):
        pixels = pixel_metrics(maps, torch.stack([item["mask"] for item in items]))
        metrics |= {name: pixels[name] for name in ("pixel_auroc", "aupro")}
    return metrics


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A file of this name in a temporary folder; moved to ``path`` on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        yield Path(folder) / path.name
        # Weights first: a file that refers to its weights must not exist without them.
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.suffix == path.suffix):
            shutil.move(file, path.with_name(file.name))


@contextmanager
def silence_exporters() -> Iterator[None]:
    """Suppress the exporters' logs and warnings about their internals."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def write_onnx(program: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write one ``.onnx`` file with its weights."""
    import_runtime("onnxscript", path)
    onnx = import_runtime("onnx", path)
    model = to_onnx(program)
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    path.write_bytes(model.SerializeToString())


@lru_cache(maxsize=1)  # OpenVINO uses it too
def to_onnx(program: ExportedProgram) -> Any:
    """The graph as an ONNX model."""
    names: dict[str, Any] = {"input_names": [IMAGE], "output_names": [MAP, SCORE]}
    with silence_exporters():
        onnx_program = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert onnx_program is not None
    model = onnx_program.model_proto
    # torch's metadata of each operation contain paths of this machine.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
    return model


def write_openvino(program: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write ``.xml`` and ``.bin``, converted from ONNX."""
    save_openvino(to_openvino(program, path), path, metadata)


def to_openvino(program: ExportedProgram, path: Path) -> Any:
    """The graph as an OpenVINO model, through a temporary ONNX file in the folder of ``path``."""
    core = import_runtime("openvino", path).Core()
    onnx_path = path.with_name(f".{path.stem}-temporary.onnx")
    write_onnx(program, onnx_path, Metadata(None, "", (0, 0), None, {}))
    try:
        return core.read_model(onnx_path)
    finally:
        onnx_path.unlink()


def save_openvino(model: Any, path: Path, metadata: Metadata) -> None:
    """Write an OpenVINO model, without compression to float16."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)
    # Save again, with the hash of the weights.
    facts = replace(metadata, weights_sha256=sha256_file(path.with_suffix(".bin")))
    model.set_rt_info(facts.to_json(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def write_torch(program: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write torch's ``.pt2`` archive."""
    with silence_exporters():
        torch.export.save(program, path, extra_files={f"{KEY}.json": metadata.to_json()})


WRITERS: dict[str, Callable[[ExportedProgram, Path, Metadata], None]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch": write_torch,
}


def quantise(model: Any, images: list[Any], path: Path) -> Any:
    """Quantise the networks to int8 by NNCF; the scoring remains in float32.

    Args:
        model: from `to_openvino`.
        images: uint8 (1, 3, H, W) each, normal ones, to calibrate the range of each layer.
        path: of the future file, for error messages.
    """
    # NNCF sends telemetry unless this is set.
    os.environ.setdefault("NNCF_CI", "1")
    nncf = import_runtime("nncf", path)
    with silence_exporters():
        return nncf.quantize(
            model,
            nncf.Dataset([{IMAGE: image} for image in images]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=scoring_operations(model)),
        )


def scoring_operations(model: Any) -> list[str]:
    """Names of the scoring's operations: the norms of the cosines and everything after them."""
    names: dict[str, str] = {}
    for operation in model.get_ordered_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        sources = {value.get_node().get_friendly_name() for value in operation.input_values()}
        if kind == "ReduceL2" or sources & names.keys():
            names[name] = kind
    return [n for n, kind in names.items() if kind not in ("Constant", "Result", "Parameter")]
