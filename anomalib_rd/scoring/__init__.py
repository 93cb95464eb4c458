"""From teacher and student features to anomaly maps and image scores."""

from anomalib_rd.scoring.maps import AnomalyScorer, Scored, gaussian_matrix, score_images
from anomalib_rd.scoring.standardised import StandardisedScorer
from anomalib_rd.scoring.tiling import Tiling

__all__ = [
    "AnomalyScorer",
    "Scored",
    "StandardisedScorer",
    "Tiling",
    "gaussian_matrix",
    "score_images",
]
