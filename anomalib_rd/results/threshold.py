"""Threshold for anomalous images: ``threshold`` in a run's checkpoint and ``result.json``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anomalib_rd.errors import UserError

HELD_OUT, TRAINING = "held-out images", "training images"
QUANTILE = "quantile"
ANOMALOUS, NORMAL = "anomalous", "normal"
_SCORE_LISTS = ("normal_scores", "normal_peaks")


@dataclass(frozen=True)
class Threshold:
    """Threshold of image scores and map values.

    Attributes:
        kind: ``quantile`` of normal images, ``f1max`` on images with synthetic defects, or
            ``given`` by the user.
        image: threshold of scores; an image is anomalous if its score is at least this.
        pixel: threshold of map values, for drawing. For ``quantile`` it is the quantile of the
            maps' highest values. If these are the scores it equals ``image``, so that exactly the
            anomalous images get an outline; standardised scores have another scale.
        score_std: standard deviation of the normal images' scores; None for ``given``.
        source: images it was computed from: `HELD_OUT` or `TRAINING`.
        normal_images, defect_images: numbers of these images.
        false_positive_rate: upper bound for new normal images, for ``quantile``.
        optimistic: whether the student was trained on these images. Their scores are lower than
            those of new images, so the bound does not hold.
        normal_scores: scores of the normal images, for `at_rate`.
        normal_peaks: highest value of each of their maps; empty if these are the scores.
    """

    kind: str
    image: float
    pixel: float
    score_std: float | None = None
    source: str | None = None
    normal_images: int = 0
    defect_images: int = 0
    false_positive_rate: float | None = None
    optimistic: bool = False
    normal_scores: tuple[float, ...] = field(default=(), repr=False)
    normal_peaks: tuple[float, ...] = field(default=(), repr=False)

    def verdict(self, score: float) -> str:
        """``anomalous`` or ``normal``."""
        return ANOMALOUS if score >= self.image else NORMAL

    def normalised(self, score: float) -> float | None:
        """Score in [0, 1], 0.5 at the threshold; None without ``score_std``.

        1 / (1 + exp((image - score) / score_std)): one standard deviation of the normal scores
        above the threshold is 0.73, three are 0.95. The order of scores is preserved.
        """
        if self.score_std is None:
            return None
        distance = score - self.image
        if self.score_std == 0:
            return 0.5 + 0.5 * ((distance > 0) - (distance < 0))
        return 0.5 * (1 + math.tanh(distance / self.score_std / 2))  # equal, without overflow

    def with_given_value(self, value: float) -> "Threshold":
        """The image threshold that a user gives; also for pixels if ``pixel`` equals ``image``."""
        return replace(
            self,
            kind="given",
            image=value,
            pixel=value if self.pixel == self.image else self.pixel,
            false_positive_rate=None,
            optimistic=False,
        )

    def at_rate(self, rate: float) -> "Threshold":
        """Threshold for another false positive rate, from the same normal images.

        Raises:
            UserError: not between 0 and 1, or too low for the number of saved scores.
        """
        if not 0 < rate < 1:
            raise UserError(f"false positive rate {rate:g}: must be between 0 and 1, such as 0.05")
        count = len(self.normal_scores)
        if count < images_needed(rate):
            allowed = math.ceil(10000 / (count + 1)) / 10000
            hint = f"allows {allowed:g} or more" if count else "train again, or give a threshold"
            raise UserError(
                f"false positive rate {rate:g}: needs the scores of {images_needed(rate)} normal "
                f"images, and the model has {count}: {hint}"
            )
        image, bound = conformal_threshold(self.normal_scores, rate)
        return replace(
            self,
            kind=QUANTILE,
            image=image,
            pixel=conformal_threshold(self.normal_peaks or self.normal_scores, rate)[0],
            defect_images=0,
            false_positive_rate=bound,
        )

    def summary(self) -> dict[str, Any]:
        """All fields except the lists of scores."""
        return {name: value for name, value in asdict(self).items() if name not in _SCORE_LISTS}

    def __str__(self) -> str:
        start = f"{self.image:.4g}"
        if self.kind == "given":
            return f"{start}, as given"
        if self.kind == "f1max":
            images = f"{self.normal_images} normal and {self.defect_images} synthetic defect images"
            return f"{start}, the best F1 on {images} held out"
        rate = f"{100 * (self.false_positive_rate or 0):.2g} %"
        images = f"the {self.normal_images} {self.source}"
        if self.optimistic:
            return f"{start}, reached by {rate} of {images}; new images reach it more often"
        return f"{start}, reached by at most {rate} of normal images like {images}"


def images_needed(rate: float) -> int:
    """Number of normal images for a false positive rate; N images allow at least 1 / (N + 1)."""
    return max(1, math.ceil(1 / rate - 1 - 1e-9))


def describe_threshold(record: Mapping[str, Any], path: Path) -> str:
    """The threshold in a run's record as text, and the requested rate if it was not reached.

    Raises:
        UserError: the threshold is damaged; the message names ``path``.
    """
    threshold = parse_threshold(record.get("threshold"), path)
    if threshold is None:
        return "none"
    requested = ((record.get("config") or {}).get("threshold") or {}).get("false_positive_rate")
    rate = threshold.false_positive_rate
    if requested is None or rate is None or rate <= requested + 1e-9:
        return str(threshold)
    needed = images_needed(requested)
    return f"{threshold}; {100 * requested:.2g} % was requested, which needs {needed} such images"


def parse_threshold(saved: Mapping[str, Any] | None, path: Path) -> Threshold | None:
    """The threshold from its saved fields, if any; unknown fields are ignored.

    Raises:
        UserError: a field is missing or invalid; the message names ``path``.
    """
    if saved is None:
        return None
    try:
        values = {f.name: saved[f.name] for f in fields(Threshold) if f.name in saved}
        for name in _SCORE_LISTS:
            values[name] = tuple(map(float, values.get(name, ())))
        threshold = Threshold(**values)
        if not (math.isfinite(threshold.image) and math.isfinite(threshold.pixel)):
            raise TypeError("not a number")
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its threshold is damaged ({error}); run again") from error
    return threshold


def conformal_threshold(scores: ArrayLike, rate: float) -> tuple[float, float]:
    """Threshold that a new normal image reaches with a probability of at most ``rate``.

    Split conformal prediction (Papadopoulos et al., ECML 2002): just above the k-th lowest of the N
    scores, k = ceil((N + 1) (1 - rate)). The bound holds on average over draws of the N images, if
    they and the new one are exchangeable: not for images that the model was trained on. With too
    few images (k > N) it is just above the highest score, with bound 1 / (N + 1).

    Args:
        scores: (N,) scores of normal images, at least one.
        rate: false positive rate in (0, 1).

    Returns:
        The threshold, and the bound of its false positive rate.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    count = len(ordered)
    # The tolerance is for rates such as 0.1, which has no exact binary representation.
    k = min(math.ceil((count + 1) * (1 - rate) - 1e-9), count)
    return float(np.nextafter(ordered[k - 1], np.inf)), (count + 1 - k) / (count + 1)
