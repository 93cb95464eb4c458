"""`bench infer`: speed of scoring test images, compared with a plain loop and other runtimes."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anomalib_rd.inference.detector import Network
from anomalib_rd.inference.devices import BF16, FLOAT32
from anomalib_rd.inference.export import WRITERS, Graph, trace
from anomalib_rd.inference.load import fold_batch_norms
from anomalib_rd.inference.runtimes import FORMATS, Metadata, open_model
from anomalib_rd.networks import Distiller
from anomalib_rd.scoring import AnomalyScorer, Tiling

from .ceilings import highest, measure_ceilings, share
from .measuring import interleaved, peak_rss, reset_peak_rss
from .plain_loop import Score, plain_scoring

# Label, format, precision, needed packages.
RUNTIMES = (
    ("ONNX Runtime", "onnx", FLOAT32, ("onnx", "onnxscript", "onnxruntime")),
    ("OpenVINO", "openvino", FLOAT32, ("onnx", "openvino")),
    ("OpenVINO, bf16", "openvino", BF16, ("onnx", "openvino")),
)


@dataclass(frozen=True)
class Scoring:
    """A contestant; ``precision`` is Lightning's name."""

    name: str
    score: Score
    batch_size: int = 1
    precision: str = "32-true"

    def score_all(self, images: Tensor, seconds: list[float]) -> list[tuple[Tensor, Tensor]]:
        """Maps and scores of all batches; appends the seconds of each call."""
        results = []
        for batch in images.split(self.batch_size):
            start = time.perf_counter()
            results.append(self.score(batch))
            seconds.append(time.perf_counter() - start)
        return results


def measure(
    networks: Distiller,
    scorer: AnomalyScorer,
    images: Tensor,
    batch_size: int,
    rounds: int,
    device: torch.device,
) -> dict[str, Any]:
    """Score all images with each contestant, in interleaved rounds.

    Measured from decoded images in host memory to maps and scores there.

    Args:
        networks: of a run, trained or not.
        scorer: of the run.
        images: (N, 3, H, W) uint8.
        batch_size: of the batched contestants.
        rounds: number of rounds after the warm-up.
        device: of the networks.

    Returns:
        ``contestants``, ``ceilings``, ``plain_scores`` (their range), ``images``, ``batch_size``,
        ``rounds``.
    """
    networks = networks.to(device).eval()
    exported = exported_scorings(networks, scorer, images.shape[-2:], batch_size, device)
    scorings = [*torch_scorings(networks, scorer, batch_size, device), *exported]
    untimed = [score_once(scoring, images) for scoring in scorings]
    for result in untimed:
        result["flops"] = result["flops"] or untimed[1]["flops"]  # torch counts only its own
    seconds: list[list[float]] = [[] for _ in scorings]
    calls: dict[str, Callable[[], object]] = {
        scoring.name: partial(scoring.score_all, images, taken)
        for scoring, taken in zip(scorings, seconds, strict=True)
    }
    before = measure_ceilings(device)
    timings = interleaved(calls, rounds)
    limits = highest(before, measure_ceilings(device))
    contestants = {}
    for scoring, timing, result, taken in zip(scorings, timings, untimed, seconds, strict=True):
        calls_per_round = len(taken) // (rounds + 1)
        median = statistics.median(timing.seconds)
        flops_per_s = result["flops"] / median
        ratios = [b / s for b, s in zip(timings[0].seconds, timing.seconds, strict=True)]
        contestants[scoring.name] = {
            "batch_size": scoring.batch_size,
            "precision": scoring.precision,
            "latency_ms": 1e3 * statistics.median(taken[calls_per_round:]),
            "images_per_s": len(images) / median,
            "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            "score_difference": largest_difference(result, untimed[0], "scores"),
            "map_difference": largest_difference(result, untimed[0], "maps"),
            "peak_rss": result["peak_rss"],
            "peak_cuda": result["peak_cuda"],
            "flops_per_s": flops_per_s,
            "of_ceiling": share(flops_per_s, scoring.precision, limits),
        }
    least, most = torch.aminmax(untimed[0]["scores"])
    return {
        "images": len(images),
        "batch_size": batch_size,
        "rounds": rounds,
        "contestants": contestants,
        "plain_scores": {"min": least.item(), "max": most.item()},
        "ceilings": limits,
    }


def largest_difference(result: dict[str, Any], baseline: dict[str, Any], key: str) -> float:
    """Largest absolute difference of the scores or maps."""
    difference: float = (result[key] - baseline[key]).abs().max().item()
    return difference


def score_once(scoring: Scoring, images: Tensor) -> dict[str, Any]:
    """Measure what needs no clock: ``maps``, ``scores``, peak memory, ``flops`` of all images."""
    cuda = torch.cuda.is_initialized()
    reset_peak_rss()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    results = scoring.score_all(images, [])
    peaks = {
        "peak_rss": peak_rss(),
        "peak_cuda": torch.cuda.max_memory_allocated() if cuda else None,
    }
    with FlopCounterMode(display=False) as counter:
        scoring.score(images[:1])
    return {
        **peaks,
        "maps": torch.cat([maps for maps, _ in results]),
        "scores": torch.cat([scores for _, scores in results]),
        "flops": counter.get_total_flops() * len(images),
    }


def torch_scorings(
    networks: Distiller, scorer: AnomalyScorer, batch_size: int, device: torch.device
) -> list[Scoring]:
    """RD4AD's loop, then ours with one more switch each; ``networks`` are in eval mode."""
    last = copy.deepcopy(networks).to(memory_format=torch.channels_last)
    folded = fold_batch_norms(copy.deepcopy(last)).to(memory_format=torch.channels_last)

    def scoring(name: str, own: Distiller, size: int, bf16: bool = False) -> Scoring:
        score = run_scoring(own, scorer, device, bf16)
        return Scoring(name, score, size, "bf16-mixed" if bf16 else "32-true")

    return [
        Scoring("plain loop, batch 1", plain_scoring(networks, scorer, device)),
        scoring("anomalib-rd, batch 1", networks, 1),
        scoring(f"+ batch {batch_size}", networks, batch_size),
        scoring("+ channels last", last, batch_size),
        scoring("+ folded norms (predict)", folded, batch_size),
        scoring("channels last, bf16", last, batch_size, bf16=True),
    ]


def run_scoring(
    networks: Distiller, scorer: AnomalyScorer, device: torch.device, bf16: bool = False
) -> Score:
    """The scoring of a batch in a run's test."""

    def score(images: Tensor) -> tuple[Tensor, Tensor]:
        context = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
        with torch.inference_mode(), context:
            distilled = networks(images.to(device))
            height, width = images.shape[-2:]
            maps, scores = scorer(*distilled, (height, width))
        return maps.cpu(), scores.cpu()

    return score


def exported_scorings(
    networks: Distiller,
    scorer: AnomalyScorer,
    image_size: Sequence[int],
    batch_size: int,
    device: torch.device,
) -> list[Scoring]:
    """The installed runtimes, with as many threads as torch; none if ``device`` is a GPU.

    The networks, in eval mode, are not changed.
    """
    installed = [runtime for runtime in RUNTIMES if all(map(find_spec, runtime[3]))]
    if not installed or device.type != "cpu":
        return []
    height, width = image_size
    graph = Graph(copy.deepcopy(networks), copy.deepcopy(scorer), Tiling(), (height, width))
    program = trace(graph)
    facts = Metadata(None, "", (height, width), None, {})
    scorings = []
    with TemporaryDirectory() as folder:
        for kind in dict.fromkeys(kind for _, kind, _, _ in installed):
            WRITERS[kind](program, Path(folder, f"model{FORMATS[kind]}"), facts)
        for name, kind, precision, _ in installed:
            path = Path(folder, f"model{FORMATS[kind]}")
            opened = open_model(kind, path, "cpu", precision, torch.get_num_threads())
            score = partial(runtime_score, opened.network)
            scorings.append(Scoring(f"{name}, batch {batch_size}", score, batch_size, precision))
    return scorings


def runtime_score(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and scores by an exported network."""
    maps, scores = network(images.numpy())
    return torch.from_numpy(maps), torch.from_numpy(scores)
