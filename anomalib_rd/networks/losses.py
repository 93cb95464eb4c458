"""How far the student's features are from the teacher's: cosine distances summed over scales.

All in float32, whatever the precision of the networks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vecdot, vector_norm

EPS = 1e-8  # of F.cosine_similarity


class FlattenedCosine(nn.Module):
    """One cosine an image and scale, over all C*H*W values: RD4AD's code and published numbers."""

    def forward(
        self,
        features: list[Tensor],
        restored: list[Tensor],
        masks: list[Tensor],  # noqa: ARG002
    ) -> Tensor:
        """Sum over scales of the batch mean of 1 - cos.

        Args:
            features: teacher's, [(B, Ck, Hk, Wk)].
            restored: student's, shaped as the teacher's.
            masks: [(B, 1, Hk, Wk)], 1 where hidden; not weighted here.
        """
        with torch.autocast(features[0].device.type, enabled=False):
            pairs = zip(features, restored, strict=True)
            return sum_scales(
                [(1 - flattened_cosine(f.float(), r.float())).mean() for f, r in pairs]
            )


class PixelCosine(nn.Module):
    """One cosine a position over its C values, averaged: the formula of RD4AD's paper (eq. 1-2)."""

    def forward(
        self,
        features: list[Tensor],
        restored: list[Tensor],
        masks: list[Tensor],  # noqa: ARG002
    ) -> Tensor:
        """Sum over scales of the mean over batch and positions of 1 - cos; arguments as above."""
        with torch.autocast(features[0].device.type, enabled=False):
            pairs = zip(features, restored, strict=True)
            return sum_scales(
                [(1 - F.cosine_similarity(f.float(), r.float(), dim=1)).mean() for f, r in pairs]
            )


def flattened_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (B,) of two batches (B, C, H, W), each image as one vector.

    F.cosine_similarity of the flattened batches gives the same and takes up to five times as
    long: it writes both vectors anew, divided by their norms, and copies channels-last batches.
    """
    if a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    a, b = a.flatten(1), b.flatten(1)
    norms = vector_norm(a, dim=1).clamp_min(EPS) * vector_norm(b, dim=1).clamp_min(EPS)
    return vecdot(a, b) / norms


def sum_scales(losses: list[Tensor]) -> Tensor:
    """Sum of scalars as a tensor."""
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total
