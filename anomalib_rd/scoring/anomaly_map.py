"""Anomaly maps and image scores from teacher and student features."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from anomalib_rd.errors import UserError
from anomalib_rd.scoring.tiling import Tiling


class ScoringOutput(NamedTuple):
    """Anomaly maps (B, H, W) and image scores (B,), both float32; higher is more anomalous."""

    maps: Tensor
    scores: Tensor


class AnomalyScorer(nn.Module):
    """RD4AD's scoring (arXiv 2201.10703, section 3.4): larger values are more anomalous.

    The map is 1 - cos between teacher and student over the channels at each position, resized to
    the image bilinearly (``align_corners``), summed over the scales and smoothed by a Gaussian.
    The score is the maximum of the map.

    Args:
        sigma: standard deviation of the Gaussian in pixels; 0 disables it.

    Raises:
        ValueError: a negative sigma.
    """

    def __init__(self, sigma: float = 4.0) -> None:
        super().__init__()
        if not sigma >= 0:  # also true of NaN
            raise ValueError(f"sigma={sigma}: must be 0 or more (pixels)")
        self.sigma = sigma
        self._blurs: dict[tuple[int, torch.device], Tensor] = {}

    def forward(
        self,
        teacher_features: list[Tensor],
        student_features: list[Tensor],
        size: tuple[int, int],
    ) -> ScoringOutput:
        """Score a batch of features [(B, Ck, Hk, Wk)] with maps of size (H, W) pixels."""
        return self.postprocess(self.raw_maps(teacher_features, student_features, size))

    def raw_maps(
        self,
        teacher_features: list[Tensor],
        student_features: list[Tensor],
        size: tuple[int, int],
    ) -> Tensor:
        """Maps (B, H, W), float32, before smoothing; same arguments as `forward`."""
        with torch.autocast(teacher_features[0].device.type, enabled=False):
            distances = [
                1 - F.cosine_similarity(t.float(), s.float(), dim=1)
                for t, s in zip(teacher_features, student_features, strict=True)
            ]
            return torch.stack(
                [
                    F.interpolate(d.unsqueeze(1), size, mode="bilinear", align_corners=True)
                    for d in distances
                ]
            ).sum(0)[:, 0]

    def postprocess(self, maps: Tensor) -> ScoringOutput:
        """Smooth the raw maps (B, H, W) of complete images and score them."""
        if self.sigma:
            height, width = maps.shape[-2:]
            # Products in half precision would round the maps to 3 digits.
            with torch.autocast(maps.device.type, enabled=False):
                maps = self._blur(height, maps) @ maps @ self._blur(width, maps).T
        return ScoringOutput(maps, maps.flatten(1).amax(1))

    def _blur(self, length: int, like: Tensor) -> Tensor:
        key = (length, like.device)
        if key not in self._blurs:
            self._blurs[key] = gaussian_matrix(length, self.sigma).to(like)
        return self._blurs[key]


class StandardisedScorer(AnomalyScorer):
    """The maps of `AnomalyScorer`; the score is the maximum of the standardised map.

    At edges and prints the student restores normal images badly, and high values mean little.
    Therefore z = (map - mean) / (std + mean std), with the mean and standard deviation of each
    pixel over the maps of normal training images; the mean std prevents nearly constant pixels
    from dominating. Maps and pixel metrics are unchanged. Meant for objects in a fixed pose;
    otherwise the statistics are nearly constant and have little effect.

    Args:
        image_size: (H, W) of the maps in pixels.
        sigma: standard deviation of the Gaussian in pixels; 0 disables it.

    Attributes:
        mean: (H, W), mean of the normal images' maps; 0 before `fit`.
        scale: (H, W), std + mean std; 1 before `fit`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, image_size: Sequence[int], sigma: float = 4.0) -> None:
        super().__init__(sigma)
        height, width = image_size
        self.register_buffer("mean", torch.zeros(height, width))
        self.register_buffer("scale", torch.ones(height, width))

    def postprocess(self, maps: Tensor) -> ScoringOutput:
        """Smooth the raw maps (B, H, W) of complete images; score the standardised maps."""
        smooth = super().postprocess(maps).maps
        return ScoringOutput(smooth, ((smooth - self.mean) / self.scale).flatten(1).amax(1))

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Compute the statistics from smoothed maps [(B, H, W)] of normal images.

        Raises:
            UserError: fewer than two images, or all maps equal.
        """
        count = 0
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for batch in maps:
            count += len(batch)
            total += batch.double().sum(0)
            squares += batch.double().square().sum(0)
        if count < 2:
            raise UserError(
                f"standardised scoring: needs at least 2 normal training images, got {count}"
            )
        mean = total / count
        std = ((squares - count * mean.square()) / (count - 1)).clamp_min(0).sqrt()
        if not std.mean() > 0:
            raise UserError(
                "standardised scoring: the maps of all normal training images are equal; check "
                "that the images differ"
            )
        self.mean.copy_(mean)
        self.scale.copy_(std + std.mean())


def score_images(
    images: Tensor,
    networks: Callable[[Tensor], tuple[list[Tensor], list[Tensor]]],
    scorer: AnomalyScorer,
    tiling: Tiling,
) -> ScoringOutput:
    """Score images: raw maps of the tiles are blended into one map, which is then smoothed.

    Args:
        images: (B, 3, H, W), uint8 or float in [0, 1].
        networks: images -> teacher and student features, such as `Distiller`.
        scorer: features -> maps and scores.
        tiling: of the images.

    Raises:
        UserError: images smaller than a tile.
    """

    def raw_maps(tiles: Tensor) -> Tensor:
        teacher_features, student_features = networks(tiles)
        height, width = tiles.shape[-2:]
        return scorer.raw_maps(teacher_features, student_features, (height, width))

    return scorer.postprocess(tiling.map(images, raw_maps))


def gaussian_matrix(length: int, sigma: float) -> Tensor:
    """Matrix (length, length) that smooths a column like ``scipy.ndimage.gaussian_filter1d``.

    As in RD4AD, borders are reflected and the kernel is truncated at 4 sigma. Two matrix products
    apply the filter on any device.
    """
    return torch.from_numpy(
        gaussian_filter1d(np.eye(length), sigma, axis=0, mode="reflect", truncate=4.0)
    ).float()
