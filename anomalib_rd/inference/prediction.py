"""What a model says of one image."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from anomalib_rd.results.threshold import ANOMALOUS, Threshold


@dataclass(frozen=True, eq=False)
class Prediction:
    """Score and map; with a threshold a verdict too.

    Attributes:
        score: higher is more anomalous.
        map: float32 (H, W), at the network's size; higher is more anomalous.
        size: (H, W) of the image itself, upright.
        image: uint8 (H, W, 3), as the network saw it.
        threshold: where anomalous begins; None if the run has none.
    """

    score: float
    map: np.ndarray = field(repr=False)
    size: tuple[int, int]
    image: np.ndarray = field(repr=False)
    threshold: Threshold | None = field(repr=False)

    @property
    def verdict(self) -> str | None:
        """``anomalous`` (score >= threshold) or ``normal``; None without a threshold."""
        return None if self.threshold is None else self.threshold.verdict(self.score)

    @property
    def anomalous(self) -> bool | None:
        """The verdict as a truth value."""
        return None if self.verdict is None else self.verdict == ANOMALOUS

    @property
    def normalised(self) -> float | None:
        """The score in [0, 1], 0.5 at the threshold: see `Threshold.normalised`."""
        return None if self.threshold is None else self.threshold.normalised(self.score)

    def full_map(self) -> np.ndarray:
        """The map at the image's own size: float32 (H, W), bilinear, antialiased if smaller."""
        return self.map_of_size(self.size)

    def map_of_size(self, size: tuple[int, int]) -> np.ndarray:
        """The map at any size (H, W), in the same way."""
        if self.map.shape == size:
            return self.map
        height, width = size
        resized = Image.fromarray(self.map).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized)
