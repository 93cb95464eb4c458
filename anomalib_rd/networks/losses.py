"""How far the student's features are from the teacher's: cosine distances summed over scales.

All in float32, whatever the precision of the networks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vecdot, vector_norm

from anomalib_rd.errors import UserError

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


class HardCosine(nn.Module):
    """As `FlattenedCosine`, learning most where the student is furthest off.

    Its value is the same; the gradient of a position is weighted by the position's distance
    1 - cos over the image's mean distance, cut at ``limit``. What is easy to restore is soon
    learnt, and drowns what is not in one cosine over all. The idea is ReContrast's hard-normal
    mining (arXiv 2306.02602), which drops the easy positions' gradient instead of weighting.

    Args:
        limit: highest weight of a position, above 1.

    Raises:
        UserError: a limit of 1 or less.
    """

    def __init__(self, limit: float = 3.0) -> None:
        super().__init__()
        if not limit > 1:
            raise UserError(f"loss.limit={limit}: must be above 1")
        self.limit = limit
        self.cosine = FlattenedCosine()

    def forward(
        self, features: list[Tensor], restored: list[Tensor], masks: list[Tensor]
    ) -> Tensor:
        """Sum over scales of the batch mean of 1 - cos; arguments as above."""
        with torch.autocast(features[0].device.type, enabled=False):
            weighted = [
                with_gradient(r, self._weights(f.float(), r.float()))
                for f, r in zip(features, restored, strict=True)
            ]
        loss: Tensor = self.cosine(features, weighted, masks)
        return loss

    @torch.no_grad()
    def _weights(self, feature: Tensor, restored: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, limit]."""
        distance = 1 - F.cosine_similarity(feature, restored, dim=1).unsqueeze(1)
        mean = distance.mean((1, 2, 3), keepdim=True).clamp_min(EPS)
        return (distance / mean).clamp(0, self.limit)


def with_gradient(values: Tensor, weights: Tensor) -> Tensor:
    """The values as they are; a gradient that comes back is multiplied by the weights."""
    fixed = values.detach()
    return fixed + (values - fixed) * weights.to(values.dtype)


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
