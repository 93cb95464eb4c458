"""From teacher and student features to anomaly maps and image scores."""

from anomalib_rd.scoring.anomaly_map import (
    AnomalyScorer,
    Scored,
    StandardisedScorer,
    gaussian_matrix,
    score_images,
)
from anomalib_rd.scoring.tiling import Tiling

__all__ = [
    "AnomalyScorer",
    "Scored",
    "StandardisedScorer",
    "Tiling",
    "gaussian_matrix",
    "score_images",
]
