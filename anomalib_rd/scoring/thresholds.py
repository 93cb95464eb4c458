"""From scores of images or pixels with their truth to the score that parts them best.

A score is anomalous from the threshold on: ``score >= threshold``.
"""

from anomalib_rd.metrics.functional import Ranking


def best_f1(ranking: Ranking) -> float:
    """The score from which on the F1 of the defects is best, the highest of several such.

    Args:
        ranking: of images or pixels, with at least one defect.
    """
    f1 = 2 * ranking.hits / (ranking.hits + ranking.false_alarms + ranking.defects)
    return float(ranking.thresholds[f1.argmax()])
