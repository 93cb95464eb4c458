"""What the makers of defects share: place, size, and the way back to 8 bits."""

import numpy as np


def somewhere(where: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """A pixel (row, column) of the region ``where`` (H, W), each as likely as any other."""
    inside = np.flatnonzero(where)
    row, column = np.unravel_index(inside[rng.integers(len(inside))], where.shape)
    return int(row), int(column)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform: small defects are as common as large ones."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def rounded(values: np.ndarray) -> np.ndarray:
    """Grey levels as uint8."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
