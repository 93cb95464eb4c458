"""From teacher and student features to anomaly maps and image scores."""

from anomalib_rd.scoring.maps import AnomalyScorer, gaussian_matrix

__all__ = ["AnomalyScorer", "gaussian_matrix"]
