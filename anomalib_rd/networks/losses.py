"""Losses: cosine distances between teacher and student features, summed over scales.

A loss takes the features of both networks, [(B, Ck, Hk, Wk)], and returns a scalar. All are
computed in float32, whatever the precision of the networks.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vecdot, vector_norm

EPS = 1e-8  # of F.cosine_similarity


class FlattenedCosine(nn.Module):
    """One cosine per image and scale, over all C*H*W values: RD4AD's code and published numbers."""

    def forward(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Sum over scales of the batch mean of 1 - cos."""
        return mean_distance(flattened_cosine, teacher_features, student_features)


class PixelCosine(nn.Module):
    """One cosine per position over its C values: the formula of RD4AD's paper (eq. 1-2)."""

    def forward(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Sum over scales of the mean over batch and positions of 1 - cos."""
        return mean_distance(F.cosine_similarity, teacher_features, student_features)


class HardCosine(nn.Module):
    """`FlattenedCosine` that learns most where the student is furthest from the teacher.

    The value is the same, but the gradient of each position is multiplied by its distance
    1 - cos, divided by the image's mean distance and clipped to ``limit``. Otherwise easy
    positions, which are learnt soon, dominate the cosine. The idea is ReContrast's hard-normal
    mining (arXiv 2306.02602), which drops the gradient of easy positions.

    Args:
        limit: highest weight of a position, above 1.

    Raises:
        ValueError: a limit of 1 or less.
    """

    def __init__(self, limit: float = 3.0) -> None:
        super().__init__()
        if not limit > 1:
            raise ValueError(f"limit={limit}: must be above 1")
        self.limit = limit

    def forward(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Sum over scales of the batch mean of 1 - cos."""
        with torch.autocast(teacher_features[0].device.type, enabled=False):
            weighted = [
                scale_gradient(s, self._weights(t.float(), s.float()))
                for t, s in zip(teacher_features, student_features, strict=True)
            ]
        return mean_distance(flattened_cosine, teacher_features, weighted)

    @torch.no_grad()
    def _weights(self, teacher: Tensor, student: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, limit]."""
        distance = 1 - F.cosine_similarity(teacher, student, dim=1).unsqueeze(1)
        mean = distance.mean((1, 2, 3), keepdim=True).clamp_min(EPS)
        return (distance / mean).clamp(0, self.limit)


def mean_distance(
    cosine: Callable[[Tensor, Tensor], Tensor],
    teacher_features: list[Tensor],
    student_features: list[Tensor],
) -> Tensor:
    """Sum over scales of the mean of 1 - cosine(teacher, student), in float32."""
    with torch.autocast(teacher_features[0].device.type, enabled=False):
        pairs = zip(teacher_features, student_features, strict=True)
        first, *others = [(1 - cosine(t.float(), s.float())).mean() for t, s in pairs]
        return sum(others, start=first)


def scale_gradient(values: Tensor, weights: Tensor) -> Tensor:
    """Identity whose gradient is multiplied by the weights."""
    fixed = values.detach()
    return fixed + (values - fixed) * weights.to(values.dtype)


def flattened_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (B,) of two batches (B, C, H, W), each image as one vector.

    Up to five times as fast as F.cosine_similarity of the flattened batches, which writes both
    normalised vectors and copies channels-last batches.
    """
    if a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    a, b = a.flatten(1), b.flatten(1)
    norms = vector_norm(a, dim=1).clamp_min(EPS) * vector_norm(b, dim=1).clamp_min(EPS)
    return vecdot(a, b) / norms
