"""A test image with its ground truth, anomaly map and score."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredImage:
    """A test image with its ground truth, anomaly map and score.

    Attributes:
        image: uint8 (H, W, 3).
        anomaly_map: (H', W'), higher is more anomalous.
        mask: bool (H, W) ground truth, all false for a normal image; None if there is none.
        predicted_mask: bool (H', W'), pixels that the model predicts as defective, if known.
        score: higher is more anomalous.
        path: as in scores.csv.
        defect: defect type, ``good`` for a normal image.
        row: row in scores.csv, if known.
    """

    image: np.ndarray = field(repr=False)
    anomaly_map: np.ndarray = field(repr=False)
    mask: np.ndarray | None = field(default=None, repr=False)
    predicted_mask: np.ndarray | None = field(default=None, repr=False)
    score: float = math.nan
    path: str = ""
    defect: str = ""
    row: int | None = None
