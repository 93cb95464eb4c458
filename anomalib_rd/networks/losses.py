"""How far the student's features are from the teacher's: cosine distances summed over scales."""

import torch.nn.functional as F
from torch import Tensor, nn


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
        pairs = zip(features, restored, strict=True)
        return sum_scales(
            [(1 - F.cosine_similarity(f.flatten(1), r.flatten(1))).mean() for f, r in pairs]
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
        pairs = zip(features, restored, strict=True)
        return sum_scales([(1 - F.cosine_similarity(f, r, dim=1)).mean() for f, r in pairs])


def sum_scales(losses: list[Tensor]) -> Tensor:
    """Sum of scalars as a tensor."""
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total
