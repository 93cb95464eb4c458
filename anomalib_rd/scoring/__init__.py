"""From teacher and student features to anomaly maps and image scores."""

from anomalib_rd.scoring.anomaly_map import (
    AnomalyScorer,
    ScoringOutput,
    StandardisedScorer,
    score_images,
)
from anomalib_rd.scoring.tiling import Tiling

__all__ = ["AnomalyScorer", "ScoringOutput", "StandardisedScorer", "Tiling", "score_images"]
