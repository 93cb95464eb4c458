"""The graph of an exported file: networks and scoring as one model, written in each format."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from timm.models import resnet as timm_resnet
from torch import Tensor, export, fx, nn, no_grad, uint8, zeros
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet

from anomalib_rd.inference.runtimes import IMAGE, KEY, MAP, SCORE, Metadata, runtime
from anomalib_rd.networks import Distiller
from anomalib_rd.results.files import sha256_file
from anomalib_rd.scoring import AnomalyScorer, Tiling, score_images

# Blocks that apply their children in this order; of others only nn.Sequential is sure to.
BLOCKS = (resnet.BasicBlock, resnet.Bottleneck, timm_resnet.BasicBlock, timm_resnet.Bottleneck)
PAIRS = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


Networks = TypeVar("Networks", bound=nn.Module)


def fold(networks: Networks) -> Networks:
    """Fold in place what can be folded; in eval mode, where rounding alone changes.

    Subclasses of batch norm, which do more, are left.
    """
    for part in list(networks.modules()):
        if isinstance(part, nn.Sequential):
            names = list(pairwise(dict(part.named_children())))
        elif isinstance(part, (*BLOCKS, timm_resnet.ResNet)):
            names = [pair for pair in PAIRS if hasattr(part, pair[1])]
        else:
            continue
        for first, second in names:
            convolution, norm = getattr(part, first), getattr(part, second)
            if isinstance(convolution, CONVOLUTIONS) and type(norm) is nn.BatchNorm2d:
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                setattr(part, first, fuse_conv_bn_eval(convolution, norm, transposed))
                setattr(part, second, nn.Identity())
    return networks


class Graph(nn.Module):
    """What a run's test does with a batch.

    Args:
        networks: in eval mode.
        scorer: features to maps.
        tiling: what the networks see of an image; all tiles of a batch at once.
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
        return score_images(image, self.networks, self.scorer, self.tiling)


def trace(graph: Graph) -> export.ExportedProgram:
    """The graph's operations with a batch of any size, on the CPU."""
    example = zeros(2, 3, *graph.image_size, dtype=uint8)
    batch = {0: export.Dim.DYNAMIC}
    with no_grad(), quiet():
        # What scorer and masking make once and keep is made before, and becomes a constant.
        graph(example)
        program = export.export(graph, (example,), dynamic_shapes=(batch,))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # the paths of this machine
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters say of their own insides."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


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
