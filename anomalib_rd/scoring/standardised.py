"""Image scores that know how far normal images themselves are off, place by place."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from anomalib_rd.errors import UserError
from anomalib_rd.scoring.maps import AnomalyScorer, Scored


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
