"""The contestants of ``bench infer``: ways from images in memory to maps and scores in memory."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from anomalib_rd.bench.plain_loop import WholeTeacher
from anomalib_rd.inference.graph import fold
from anomalib_rd.networks import Distiller
from anomalib_rd.scoring import AnomalyScorer

# From images (B, 3, H, W) uint8 on the host to maps (B, H, W) and scores (B,) on the host.
Score = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Scoring:
    """A contestant: ``precision`` is Lightning's name of it."""

    name: str
    score: Score
    batch_size: int = 1
    precision: str = "32-true"


def scorings(
    networks: Distiller, scorer: AnomalyScorer, batch_size: int, device: torch.device
) -> list[Scoring]:
    """RD4AD's loop, then ours with each switch added to those before it.

    Args:
        networks: on the device, in eval mode.
        scorer: features to maps.
        batch_size: of all but the first two.
        device: where the networks run.
    """
    last = copy.deepcopy(networks).to(memory_format=torch.channels_last)
    ours = our_scoring(networks, scorer, device)
    ours_last = our_scoring(last, scorer, device)
    folded = fold(copy.deepcopy(last)).to(memory_format=torch.channels_last)
    ours_folded = our_scoring(folded, scorer, device)
    ours_bf16 = our_scoring(last, scorer, device, bf16=True)
    return [
        Scoring("plain loop, batch 1", plain_scoring(networks, scorer, device)),
        Scoring("anomalib-rd, batch 1", ours),
        Scoring(f"+ batch {batch_size}", ours, batch_size),
        Scoring("+ channels last", ours_last, batch_size),
        Scoring("+ folded norms (predict)", ours_folded, batch_size),
        Scoring("channels last, bf16", ours_bf16, batch_size, "bf16-mixed"),
    ]


def plain_scoring(networks: Distiller, scorer: AnomalyScorer, device: torch.device) -> Score:
    """RD4AD's evaluation of a batch of one: whole teacher, the blur by scipy on the CPU."""
    whole = WholeTeacher(networks.teacher).to(device)

    def score(images: Tensor) -> tuple[Tensor, Tensor]:
        size = images.shape[-2:]
        with torch.no_grad():
            features = whole(networks.teacher.normalize(images.to(device)))
            restored = networks.restore(features).restored
            total = torch.zeros(size, device=device)
            for f, r in zip(features, restored, strict=True):
                distance = 1 - F.cosine_similarity(f, r)
                total += F.interpolate(
                    distance.unsqueeze(1), size, mode="bilinear", align_corners=True
                )[0, 0]
        blurred = gaussian_filter(total.cpu().numpy(), sigma=scorer.sigma)
        return torch.from_numpy(blurred).unsqueeze(0), torch.tensor([blurred.max()])

    return score


def our_scoring(
    networks: Distiller, scorer: AnomalyScorer, device: torch.device, bf16: bool = False
) -> Score:
    """What a run's test does with a batch."""

    def score(images: Tensor) -> tuple[Tensor, Tensor]:
        context = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
        with torch.inference_mode(), context:
            distilled = networks(images.to(device))
            height, width = images.shape[-2:]
            maps, scores = scorer(distilled.features, distilled.restored, (height, width))
        return maps.cpu(), scores.cpu()

    return score
