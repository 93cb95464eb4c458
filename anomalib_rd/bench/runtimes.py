"""The contestants of ``bench infer`` from other runtimes: the networks exported, on the CPU."""

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from anomalib_rd.bench.scorings import Score, Scoring
from anomalib_rd.inference.detector import Network
from anomalib_rd.inference.export import traced
from anomalib_rd.inference.graph import WRITERS, Graph
from anomalib_rd.inference.runtimes import BF16, FLOAT32, FORMATS, Metadata, open_model
from anomalib_rd.networks import Distiller
from anomalib_rd.scoring import AnomalyScorer, Tiling

RUNTIMES = (
    ("ONNX Runtime", "onnx", FLOAT32),
    ("OpenVINO", "openvino", FLOAT32),
    ("OpenVINO, bf16", "openvino", BF16),
)
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "openvino")}


def exported_scorings(
    networks: Distiller,
    scorer: AnomalyScorer,
    image_size: Sequence[int],
    batch_size: int,
    device: torch.device,
) -> list[Scoring]:
    """Those whose packages are installed, with as many threads as torch has; on a GPU none.

    Args:
        networks: in eval mode; left as they are.
        scorer: features to maps.
        image_size: (H, W) of the images.
        batch_size: images a call.
        device: where the other contestants run.
    """
    installed = [one for one in RUNTIMES if all(map(find_spec, NEEDED[one[1]]))]
    if not installed or device.type != "cpu":
        return []
    height, width = image_size
    own = copy.deepcopy(networks), copy.deepcopy(scorer)
    program = traced(Graph(*own, Tiling(), (height, width)))
    facts = Metadata(None, "", (height, width), None, {})
    found = []
    with TemporaryDirectory() as folder:
        for kind in dict.fromkeys(kind for _, kind, _ in installed):
            WRITERS[kind](program, Path(folder, f"model{FORMATS[kind]}"), facts)
        for name, kind, precision in installed:
            path = Path(folder, f"model{FORMATS[kind]}")
            opened = open_model(kind, path, "cpu", precision, torch.get_num_threads())
            score = score_by(opened.network)
            found.append(Scoring(f"{name}, batch {batch_size}", score, batch_size, precision))
    return found


def score_by(network: Network) -> Score:
    """A runtime's network, of tensors."""

    def score(images: Tensor) -> tuple[Tensor, Tensor]:
        maps, scores = network(images.numpy())
        return torch.from_numpy(maps), torch.from_numpy(scores)

    return score
