"""What makes an image anomalous to a run: ``threshold`` in its checkpoint and ``result.json``."""

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
        score_std: standard deviation of the normal images' scores; None if ``given``.
        source: the images that it is from: held out of the training, or trained on.
        normal_images, defect_images: how many they are.
        false_positive_rate: what a ``quantile`` promises of new normal images.
        optimistic: whether the student was trained on the images, so that it does better on them
            than on new ones, and the promise is not kept.
        normal_scores: of the normal images, from which `at_rate` takes another threshold; empty in
            files of older versions.
        normal_peaks: the highest value of each of their maps; empty where these are the scores.
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
        """The score on a scale from 0 to 1 with the threshold at 0.5; None without a score_std.

        1 / (1 + exp((image - score) / score_std)): a score one standard deviation of the normal
        images above the threshold is 0.73, three are 0.95. The order of scores is kept.
        """
        if self.score_std is None:
            return None
        distance = score - self.image
        if self.score_std == 0:
            return 0.5 + 0.5 * ((distance > 0) - (distance < 0))
        return 0.5 * (1 + math.tanh(distance / self.score_std / 2))  # the same, without overflow

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

    def at_rate(self, rate: float) -> "Threshold":
        """The threshold that new normal images reach with a probability of at most ``rate``.

        From the kept scores of the same normal images, see `conformal_threshold`.

        Raises:
            UserError: not between 0 and 1, lower than so few images allow, or no scores are kept.
        """
        if not 0 < rate < 1:
            raise UserError(f"false positive rate {rate:g}: must be between 0 and 1, such as 0.05")
        count = len(self.normal_scores)
        if not count:
            raise UserError(
                f"false positive rate {rate:g}: the scores of normal images are not kept with this "
                "threshold; train again, or give predict a --threshold"
            )
        if count < images_needed(rate):
            allowed = math.ceil(10000 / (count + 1)) / 10000
            raise UserError(
                f"false positive rate {rate:g}: needs the scores of {images_needed(rate)} normal "
                f"images, and {count} are kept; they allow {allowed:g} or more"
            )
        image, promised = conformal_threshold(self.normal_scores, rate)
        return replace(
            self,
            kind=QUANTILE,
            image=image,
            pixel=conformal_threshold(self.normal_peaks or self.normal_scores, rate)[0],
            defect_images=0,
            false_positive_rate=promised,
        )

    def summary(self) -> dict[str, Any]:
        """All fields but the lists of scores."""
        lists = ("normal_scores", "normal_peaks")
        return {name: value for name, value in asdict(self).items() if name not in lists}

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


def images_needed(rate: float) -> int:
    """How many normal images allow a false positive rate: from N comes at best 1 / (N + 1)."""
    return max(1, math.ceil(1 / rate - 1 - 1e-9))


def describe_threshold(record: Mapping[str, Any], path: Path) -> str:
    """The threshold of a run, its rate and its source, and the rate that was asked for.

    Args:
        record: of the run.
        path: of the record, named in the error.

    Raises:
        UserError: its threshold is damaged.
    """
    threshold = parse_threshold(record.get("threshold"), path)
    if threshold is None:
        return "none"
    asked = ((record.get("config") or {}).get("threshold") or {}).get("false_positive_rate")
    rate = threshold.false_positive_rate
    if asked is None or rate is None or rate <= asked + 1e-9:
        return str(threshold)
    needed = images_needed(asked)
    return f"{threshold}; {100 * asked:.2g} % was asked for, which needs {needed} such images"


def parse_threshold(kept: Mapping[str, Any] | None, path: Path) -> Threshold | None:
    """The threshold of its fields as a file keeps them; None of None.

    Args:
        kept: by name; others than a threshold's are let be.
        path: of the file, named in the error.

    Raises:
        UserError: they are no threshold.
    """
    if kept is None:
        return None
    known = {one.name for one in fields(Threshold)}
    try:
        values = {key: value for key, value in kept.items() if key in known}
        for name in ("normal_scores", "normal_peaks"):
            values[name] = tuple(map(float, values.get(name, ())))
        threshold = Threshold(**values)
        if not (math.isfinite(threshold.image) and math.isfinite(threshold.pixel)):
            raise TypeError("not a number")
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no threshold in it ({error}); run again") from error
    return threshold


def conformal_threshold(scores: ArrayLike, rate: float) -> tuple[float, float]:
    """The threshold that a new normal image reaches with a probability of at most ``rate``.

    Just above the k-th lowest of the N scores, k = ceil((N + 1) (1 - rate)): split conformal
    prediction (Papadopoulos et al., ECML 2002). The promise holds on average over draws of the N
    images, if they and the new one are exchangeable, so not for images that the model was trained
    on. From too few images (k > N) it is just above the highest score, and promises 1 / (N + 1).

    Args:
        scores: (N,) of normal images, at least one.
        rate: in (0, 1).

    Returns:
        The threshold, and the rate that it promises.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    count = len(ordered)
    # A rate such as 0.1 is a little more or less than a tenth.
    k = min(math.ceil((count + 1) * (1 - rate) - 1e-9), count)
    return float(np.nextafter(ordered[k - 1], np.inf)), (count + 1 - k) / (count + 1)
