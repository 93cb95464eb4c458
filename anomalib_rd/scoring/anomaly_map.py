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


class StandardisedScorer(AnomalyScorer):
    """The maps of `AnomalyScorer`; the score is the highest value of the standardised map.

    Where the student restores normal images badly, at edges and prints, a high value means little:
    z = (map - mean) / (std + mean std), with each pixel's mean and standard deviation over maps of
    normal training images. The std's own mean keeps pixels that hardly vary from ruling. Maps and
    pixel metrics stay as they are. For parts that lie alike in all images; where they do not, the
    statistics are near to constant and so is their effect.

    Args:
        image_size: (H, W) of the maps in pixels.
        sigma: standard deviation of the Gaussian in pixels; 0 leaves the map as it is.

    Attributes:
        mean: (H, W), of the normal images' maps; 0 before `fit`.
        spread: (H, W), std + mean std; 1 before `fit`.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, image_size: Sequence[int], sigma: float = 4.0) -> None:
        super().__init__(sigma)
        height, width = image_size
        self.register_buffer("mean", torch.zeros(height, width))
        self.register_buffer("spread", torch.ones(height, width))

    def finish(self, maps: Tensor) -> Scored:
        """Smooth the maps (B, H, W) of whole images and score them by the statistics."""
        smooth = super().finish(maps).maps
        return Scored(smooth, ((smooth - self.mean) / self.spread).flatten(1).amax(1))

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Take the statistics of smoothed maps [(B, H, W)] of normal images.

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
            raise UserError(f"model/scoring=standardised: needs two normal images, has {count}")
        mean = total / count
        std = ((squares - count * mean.square()) / (count - 1)).clamp_min(0).sqrt()
        if not std.mean() > 0:
            raise UserError(
                "model/scoring=standardised: the maps of the normal training images are all equal; "
                "are the images?"
            )
        self.mean.copy_(mean)
        self.spread.copy_(std + std.mean())
