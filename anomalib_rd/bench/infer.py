"""``bench infer``: how fast test images are scored, beside a plain loop and other runtimes."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anomalib_rd.bench.ceiling import ceilings, highest, share
from anomalib_rd.bench.memory import forget_peak, peak_rss
from anomalib_rd.bench.runtimes import exported_scorings
from anomalib_rd.bench.scorings import Score, Scoring, scorings
from anomalib_rd.bench.timing import Timing, interleaved
from anomalib_rd.networks import Distiller
from anomalib_rd.scoring import AnomalyScorer


def measure(
    networks: Distiller,
    scorer: AnomalyScorer,
    images: Tensor,
    batch_size: int,
    rounds: int,
    device: torch.device,
) -> dict[str, Any]:
    """Score all images by each contestant, in interleaved rounds.

    The clock runs from decoded images in host memory to maps and scores there.

    Args:
        networks: of a run, trained or not.
        scorer: of the run.
        images: (N, 3, H, W) uint8.
        batch_size: of the batched contestants.
        rounds: after one to warm up.
        device: where the networks run.

    Returns:
        ``contestants``, ``ceilings``, ``plain_scores`` (their range), ``images``, ``batch_size``,
        ``rounds``.
    """
    networks = networks.to(device).eval()
    others = exported_scorings(networks, scorer, images.shape[-2:], batch_size, device)
    ways = [*scorings(networks, scorer, batch_size, device), *others]
    looks = [first_look(way, images) for way in ways]
    for look in looks:
        look["flops"] = look["flops"] or looks[1]["flops"]  # torch counts its own alone
    seconds: list[list[float]] = [[] for _ in ways]
    calls: dict[str, Callable[[], object]] = {
        way.name: partial(score_all, way, images, taken)
        for way, taken in zip(ways, seconds, strict=True)
    }
    before = ceilings(device)
    timings = interleaved(calls, rounds)
    limits = highest(before, ceilings(device))
    least, most = torch.aminmax(looks[0]["scores"])
    return {
        "images": len(images),
        "batch_size": batch_size,
        "rounds": rounds,
        "contestants": {
            way.name: {
                "batch_size": way.batch_size,
                "precision": way.precision,
                "latency_ms": 1e3 * statistics.median(taken[-rounds * batches(way, images) :]),
                **summed_up(timing, timings[0], len(images)),
                **compared(look, looks[0]),
                "flops_per_s": look["flops"] / timing.median,
                "of_ceiling": share(look["flops"] / timing.median, way.precision, limits),
            }
            for way, timing, look, taken in zip(ways, timings, looks, seconds, strict=True)
        },
        "plain_scores": {"min": least.item(), "max": most.item()},
        "ceilings": limits,
    }


def batches(way: Scoring, images: Tensor) -> int:
    """How many calls score all images once."""
    return -(-len(images) // way.batch_size)


def score_all(way: Scoring, images: Tensor, seconds: list[float]) -> list[tuple[Tensor, Tensor]]:
    """Maps and scores of all batches; adds the seconds of each."""
    scored = []
    for batch in images.split(way.batch_size):
        start = time.perf_counter()
        scored.append(way.score(batch))
        seconds.append(time.perf_counter() - start)
    return scored


def first_look(way: Scoring, images: Tensor) -> dict[str, Any]:
    """Untimed: ``maps``, ``scores``, the peaks of memory meanwhile, and ``flops`` of all images."""
    cuda = torch.cuda.is_initialized()
    forget_peak()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    scored = score_all(way, images, [])
    return {
        "peak_rss": peak_rss(),
        "peak_cuda": torch.cuda.max_memory_allocated() if cuda else None,
        "maps": torch.cat([maps for maps, _ in scored]),
        "scores": torch.cat([scores for _, scores in scored]),
        "flops": flops(way.score, images[:1]) * len(images),
    }


def flops(score: Score, image: Tensor) -> int:
    """Floating point operations of an image's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        score(image)
    return counter.get_total_flops()


def summed_up(timing: Timing, baseline: Timing, images: int) -> dict[str, Any]:
    """``images_per_s`` and the ``ratio`` to the baseline's same rounds."""
    ratios = [b / s for b, s in zip(baseline.seconds, timing.seconds, strict=True)]
    return {
        "images_per_s": images / timing.median,
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }


def compared(look: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """Largest differences of scores and maps from the baseline, and the peaks of memory."""
    return {
        "score_difference": (look["scores"] - baseline["scores"]).abs().max().item(),
        "map_difference": (look["maps"] - baseline["maps"]).abs().max().item(),
        "peak_rss": look["peak_rss"],
        "peak_cuda": look["peak_cuda"],
    }
