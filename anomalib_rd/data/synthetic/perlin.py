"""Perlin noise, and irregular regions cut out of it."""

import numpy as np

Size = tuple[int, int]


def perlin(size: Size, cell: float, rng: np.random.Generator) -> np.ndarray:
    """Gradient noise (Perlin, 2002, with its fifth-degree fade), roughly in [-1, 1].

    Args:
        size: (H, W).
        cell: pixels from one gradient to the next: the size of the noise's features.
        rng: draws the gradients.
    """
    y, x = (np.arange(length) / cell for length in size)
    rows, columns = (int(np.ceil(length / cell)) + 2 for length in size)
    angle = rng.uniform(0, 2 * np.pi, (rows, columns))
    across, along = np.cos(angle), np.sin(angle)
    top, left = y.astype(int)[:, None], x.astype(int)[None]
    v, u = (y % 1)[:, None], (x % 1)[None]

    def corner(down: int, right: int) -> np.ndarray:
        at = top + down, left + right
        slope: np.ndarray = across[at] * (u - right) + along[at] * (v - down)
        return slope

    def fade(t: np.ndarray) -> np.ndarray:
        return t**3 * (t * (t * 6 - 15) + 10)

    upper = corner(0, 0) + fade(u) * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + fade(u) * (corner(1, 1) - corner(1, 0))
    return np.sqrt(2) * (upper + fade(v) * (lower - upper))


def blob(size: Size, at: tuple[float, float], pixels: int, rng: np.random.Generator) -> np.ndarray:
    """An irregular region (H, W) bool of ``pixels`` pixels around ``at`` (row, column).

    The highest values of Perlin noise on two scales, less the distance to ``at``, so that the
    region stays together.
    """
    radius = np.sqrt(pixels / np.pi)
    rows, columns = np.ogrid[: size[0], : size[1]]
    angle, long = rng.uniform(0, np.pi), rng.uniform(1, 1.7)
    v, u = rows - at[0], columns - at[1]
    along = (u * np.cos(angle) + v * np.sin(angle)) / long
    across = (v * np.cos(angle) - u * np.sin(angle)) * long
    height = -np.hypot(along, across) / radius
    for share, strength in ((1.2, 0.7), (0.4, 0.35)):
        height = height + strength * perlin(size, max(2.0, share * radius), rng)
    pixels = int(np.clip(pixels, 1, height.size))
    least = np.partition(height, -pixels, axis=None)[-pixels]
    region: np.ndarray = height >= least
    return region
