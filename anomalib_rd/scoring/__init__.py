"""From teacher and student features to anomaly maps and image scores."""

from anomalib_rd.scoring.maps import AnomalyScorer, Scored, gaussian_matrix

__all__ = ["AnomalyScorer", "Scored", "gaussian_matrix"]
