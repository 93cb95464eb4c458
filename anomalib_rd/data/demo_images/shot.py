"""What a subject is told about the image it has to draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shot:
    """One image to draw.

    ``rng`` drives all normal variation, ``fault`` only the defect: a subject draws the same
    numbers from ``rng`` with and without a defect, so that nothing else changes.
    """

    rng: np.random.Generator
    fault: np.random.Generator
    defect: str = "good"
    held_out: bool = False
    """Test images: textures take these from a part of the photograph training never sees."""

    def jitter(self, amount: float) -> float:
        """A normal variation, uniform in [-amount, amount]."""
        return float(self.rng.uniform(-amount, amount))

    def tone(self, colour: Sequence[float], spread: float = 0.03) -> np.ndarray:
        """The RGB ``colour`` in [0, 1] as it varies by batch, more in depth than in hue: (3,)."""
        hue = 1 + self.rng.uniform(-spread, spread, 3) / 2
        return (np.asarray(colour) * hue * (1 + self.jitter(spread))).astype(np.float32)

    def between(self, low: float, high: float) -> float:
        """A property of the defect, uniform in [low, high]."""
        return float(self.fault.uniform(low, high))
