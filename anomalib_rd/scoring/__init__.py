"""From teacher and student features to anomaly maps and image scores."""

from anomalib_rd.scoring.anomaly_map import (
    AnomalyScorer,
    ScoringOutput,
    StandardisedScorer,
    gaussian_matrix,
    score_images,
)
from anomalib_rd.scoring.tiling import Tiling

__all__ = [
    "AnomalyScorer",
    "ScoringOutput",
    "StandardisedScorer",
    "Tiling",
    "gaussian_matrix",
    "score_images",
]
