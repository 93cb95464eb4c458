"""Anomaly maps from the distance between teacher and student features."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from anomalib_rd.errors import UserError
from anomalib_rd.scoring.tiling import Tiling


class Scored(NamedTuple):
    """Anomaly maps (B, H, W) and image scores (B,), both float32; higher is more anomalous."""

    maps: Tensor
    scores: Tensor


class AnomalyScorer(nn.Module):
    """RD4AD's scoring (arXiv 2201.10703, section 3.4): larger values are more anomalous.

    At each position 1 - cos between teacher and student over the channels; brought to image size
    bilinearly (``align_corners``), summed over the scales, smoothed by a Gaussian. The image's
    score is the highest value of its map.

    Args:
        sigma: standard deviation of the Gaussian in pixels; 0 leaves the map as it is.

    Raises:
        UserError: a negative sigma.
    """

    def __init__(self, sigma: float = 4.0) -> None:
        super().__init__()
        if not sigma >= 0:  # also true of NaN
            raise UserError(f"model.scoring.sigma={sigma}: must be 0 or more (pixels)")
        self.sigma = sigma
        self._blurs: dict[tuple[int, torch.device], Tensor] = {}

    def forward(
        self, features: list[Tensor], restored: list[Tensor], size: tuple[int, int]
    ) -> Scored:
        """Score a batch.

        Args:
            features: teacher's, [(B, Ck, Hk, Wk)].
            restored: student's, shaped as the teacher's.
            size: (H, W) of the maps, in pixels.
        """
        return self.finish(self.distances(features, restored, size))

    def distances(
        self, features: list[Tensor], restored: list[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """Maps (B, H, W), float32, before they are smoothed; arguments as above."""
        with torch.autocast(features[0].device.type, enabled=False):
            distances = [
                1 - F.cosine_similarity(f.float(), r.float(), dim=1)
                for f, r in zip(features, restored, strict=True)
            ]
            return torch.stack(
                [
                    F.interpolate(d.unsqueeze(1), size, mode="bilinear", align_corners=True)
                    for d in distances
                ]
            ).sum(0)[:, 0]

    def finish(self, maps: Tensor) -> Scored:
        """Smooth the maps (B, H, W) of whole images and score them."""
        if self.sigma:
            height, width = maps.shape[-2:]
            # In half precision the products would round the maps to 3 digits.
            with torch.autocast(maps.device.type, enabled=False):
                maps = self._blur(height, maps) @ maps @ self._blur(width, maps).T
        return Scored(maps, maps.flatten(1).amax(1))

    def _blur(self, length: int, like: Tensor) -> Tensor:
        key = (length, like.device)
        if key not in self._blurs:
            self._blurs[key] = gaussian_matrix(length, self.sigma).to(like)
        return self._blurs[key]


def score_images(
    images: Tensor,
    networks: Callable[[Tensor], tuple[list[Tensor], list[Tensor], list[Tensor]]],
    scorer: AnomalyScorer,
    tiling: Tiling,
) -> Scored:
    """Anomaly maps and scores of images: by tiles blended into one map, then smoothed.

    Args:
        images: (B, 3, H, W), uint8 or float in [0, 1].
        networks: images to the teacher's features, the student's and masks, as of `Distiller`.
        scorer: of their distances.
        tiling: what the networks see of an image at once.

    Raises:
        UserError: images smaller than a tile.
    """

    def distances(tiles: Tensor) -> Tensor:
        features, restored, _ = networks(tiles)
        height, width = tiles.shape[-2:]
        return scorer.distances(features, restored, (height, width))

    return scorer.finish(tiling.map(images, distances))


def gaussian_matrix(length: int, sigma: float) -> Tensor:
    """Matrix (length, length) that smooths a column as ``scipy.ndimage.gaussian_filter1d`` does.

    Borders are reflected and the kernel is cut at 4 sigma, as in RD4AD. As a matrix the filter
    is exact at the borders and two matrix products on any device.
    """
    return torch.from_numpy(
        gaussian_filter1d(np.eye(length), sigma, axis=0, mode="reflect", truncate=4.0)
    ).float()
