"""A traced graph to a file of each format, its facts inside."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from anomalib_rd.inference.graph import quiet
from anomalib_rd.inference.metadata import IMAGE, KEY, MAP, SCORE, Metadata
from anomalib_rd.inference.runtimes import runtime
from anomalib_rd.results.files import sha256_file


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write one ``.onnx`` file, weights inside."""
    runtime("onnxscript", path)
    onnx = runtime("onnx", path)
    model = to_onnx(program)
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    path.write_bytes(model.SerializeToString())


@lru_cache(maxsize=1)  # OpenVINO takes it too
def to_onnx(program: torch.export.ExportedProgram) -> Any:
    """The graph as ONNX has it."""
    names: dict[str, Any] = {"input_names": [IMAGE], "output_names": [MAP, SCORE]}
    with quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert made is not None
    model = made.model_proto
    # torch's notes on each operation: names of its own, and the paths of this machine.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
    return model


def write_openvino(program: torch.export.ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write ``.xml`` and ``.bin``, by way of ONNX."""
    save_openvino(to_openvino(program, path), path, metadata)


def to_openvino(program: torch.export.ExportedProgram, path: Path) -> Any:
    """The graph as OpenVINO has it; a hidden ONNX file lies beside ``path`` meanwhile."""
    core = runtime("openvino", path).Core()
    between = path.with_name(f".{path.stem}-between.onnx")
    write_onnx(program, between, Metadata(None, "", (0, 0), None, {}))
    try:
        return core.read_model(between)
    finally:
        between.unlink()


def save_openvino(model: Any, path: Path, metadata: Metadata) -> None:
    """Write a graph of OpenVINO's, float32 as float32."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)
    # Only now is it known what its other file holds.
    facts = replace(metadata, weights_sha256=sha256_file(path.with_suffix(".bin")))
    model.set_rt_info(facts.to_json(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def write_torch(program: torch.export.ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write torch's own ``.pt2`` archive."""
    with quiet():
        torch.export.save(program, path, extra_files={f"{KEY}.json": metadata.to_json()})


WRITERS: dict[str, Callable[[torch.export.ExportedProgram, Path, Metadata], None]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch": write_torch,
}


def quantise(model: Any, images: list[Any], path: Path) -> Any:
    """OpenVINO's graph in int8 by NNCF, the scoring after the networks in float32 still.

    Args:
        model: from `to_openvino`.
        images: uint8 (1, 3, H, W) each, normal ones, to find the range of each layer's values.
        path: of the file to be, named in errors.
    """
    # Otherwise it reports its use to its makers, unasked.
    os.environ.setdefault("NNCF_CI", "1")
    nncf = runtime("nncf", path)
    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset([{IMAGE: one} for one in images]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=after_the_networks(model)),
        )


def after_the_networks(model: Any) -> list[str]:
    """Names of the operations from the features' norms on, by which cosines begin."""
    found: set[str] = set()
    for operation in model.get_ordered_ops():
        sources = {value.get_node().get_friendly_name() for value in operation.input_values()}
        if operation.get_type_name() == "ReduceL2" or sources & found:
            found.add(operation.get_friendly_name())
    skipped = ("Constant", "Result", "Parameter")
    return [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_friendly_name() in found and operation.get_type_name() not in skipped
    ]
