"""From scores of normal images, or of images with defects too, to the score that parts them.

A score is anomalous from the threshold on: ``score >= threshold``.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from anomalib_rd.metrics.functional import Ranking


def normal_quantile(scores: ArrayLike, rate: float) -> tuple[float, float]:
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


def best_f1(ranking: Ranking) -> float:
    """The score from which on the F1 of the defects is best, the highest of several such.

    Args:
        ranking: of images or pixels, with at least one defect.
    """
    f1 = 2 * ranking.hits / (ranking.hits + ranking.false_alarms + ranking.defects)
    return float(ranking.thresholds[f1.argmax()])
