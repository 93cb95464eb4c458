"""What makes an image anomalous to a run: ``threshold`` in its checkpoint and ``result.json``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from anomalib_rd.errors import UserError

HELD_OUT, TRAINING = "held-out images", "training images"
ANOMALOUS, NORMAL = "anomalous", "normal"


@dataclass(frozen=True)
class Threshold:
    """Where anomalous begins.

    Attributes:
        kind: ``quantile`` of normal images, ``f1max`` on images with synthetic defects, or
            ``given`` by the user.
        image: an image is anomalous if its score is this or more.
        pixel: the same of a value of the map, for drawing. Of a ``quantile`` it is that of the
            maps' highest values. Where these are the scores it equals ``image``, so that exactly
            anomalous images get an outline; standardised scores have another scale.
        spread: standard deviation of the normal images' scores; None if ``given``.
        source: the images that it is from: held out of the training, or trained on.
        normal_images, defect_images: how many they are.
        false_positive_rate: what a ``quantile`` promises of new normal images.
        optimistic: whether the student was trained on the images, so that it does better on them
            than on new ones, and the promise is not kept.
    """

    kind: str
    image: float
    pixel: float
    spread: float | None = None
    source: str | None = None
    normal_images: int = 0
    defect_images: int = 0
    false_positive_rate: float | None = None
    optimistic: bool = False

    def verdict(self, score: float) -> str:
        """``anomalous`` or ``normal``."""
        return ANOMALOUS if score >= self.image else NORMAL

    def normalised(self, score: float) -> float | None:
        """The score on a scale from 0 to 1 with the threshold at 0.5; None without a spread.

        1 / (1 + exp((image - score) / spread)): a score one standard deviation of the normal
        images above the threshold is 0.73, three are 0.95. The order of scores is kept.
        """
        if self.spread is None:
            return None
        distance = score - self.image
        if self.spread == 0:
            return 0.5 + 0.5 * ((distance > 0) - (distance < 0))
        return 0.5 * (1 + math.tanh(distance / self.spread / 2))  # the same, without overflow

    def moved(self, value: float) -> "Threshold":
        """The user's own threshold on this one's scale; where that is not the map's, of images."""
        return replace(
            self,
            kind="given",
            image=value,
            pixel=value if self.pixel == self.image else self.pixel,
            false_positive_rate=None,
            optimistic=False,
        )

    def __str__(self) -> str:
        words = f"{self.image:.4g}"
        if self.kind == "given":
            return f"{words}, as given"
        if self.kind == "f1max":
            images = f"{self.normal_images} normal and {self.defect_images} synthetic defect images"
            return f"{words}, the best F1 on {images} held out"
        rate = f"{100 * (self.false_positive_rate or 0):.2g} %"
        images = f"the {self.normal_images} {self.source}"
        if self.optimistic:
            return (
                f"{words}, reached by {rate} of {images}; by more new ones: these were trained on"
            )
        return f"{words}, reached by at most {rate} of normal images like {images}"


def threshold_of(kept: Mapping[str, Any] | None, path: Path) -> Threshold | None:
    """The threshold of its fields as a file keeps them; None of None.

    Args:
        kept: by name; others than a threshold's are let be.
        path: of the file, named in the error.

    Raises:
        UserError: they are no threshold.
    """
    if kept is None:
        return None
    known = {field.name for field in fields(Threshold)}
    try:
        threshold = Threshold(**{key: value for key, value in kept.items() if key in known})
        if not (math.isfinite(threshold.image) and math.isfinite(threshold.pixel)):
            raise TypeError("not a number")
    except (AttributeError, TypeError) as error:
        raise UserError(f"{path}: no threshold in it ({error}); run again") from error
    return threshold
