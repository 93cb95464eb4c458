"""Scratches: thin, curved, dark or light."""

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from anomalib_rd.data.synthetic.perlin import Size
from anomalib_rd.data.synthetic.place import rounded, somewhere

FINER = 4  # times, for antialiasing
STEPS = 24  # straight pieces of a stroke


def scratch(image: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one to three curved strokes from a place of the object.

    Each 15 % to 50 % of the shorter side long and 0.6 % to 1.6 % (at least 1.2 pixels) wide.

    Args:
        image: uint8 (H, W, 3).
        where: bool (H, W), where the strokes begin.
        rng: draws all of it.
    """
    cover = np.zeros(image.shape[:2])
    start = somewhere(where, rng)
    heading = rng.uniform(0, 2 * np.pi)
    # Towards the middle of the object there is more of it to scratch.
    middle = np.argwhere(where).mean(axis=0) - start
    if np.hypot(*middle) > 1:
        heading = np.arctan2(middle[0], middle[1]) + rng.normal(0, 0.7)
    for _ in range(rng.integers(1, 4)):
        turned = heading + rng.normal(0, 0.25)
        cover = np.maximum(cover, stroke(image.shape[:2], start, turned, rng))
    near = image[cover > 0.5].mean() if (cover > 0.5).any() else image.mean()
    light = near + rng.uniform(-40, 40) < 110
    ink = rng.uniform(190, 255, 3) if light else rng.uniform(0, 65, 3)
    return rounded(image + rng.uniform(0.35, 1) * cover[..., None] * (ink - image))


def stroke(
    size: Size, start: tuple[int, int], heading: float, rng: np.random.Generator
) -> np.ndarray:
    """The coverage (H, W) in [0, 1] of one stroke that fades at its end."""
    length = rng.uniform(0.15, 0.5) * min(size)
    width = max(1.2, rng.uniform(0.006, 0.016) * min(size))
    angles = (
        heading + np.cumsum(rng.normal(0, 0.12, STEPS)) + np.linspace(0, rng.normal(0, 0.5), STEPS)
    )
    step = length / STEPS
    jitter = rng.normal(0, 0.02 * length, 2)
    columns = start[1] + jitter[1] + np.cumsum(step * np.cos(angles))
    rows = start[0] + jitter[0] + np.cumsum(step * np.sin(angles))
    canvas = Image.new("L", (size[1] * FINER, size[0] * FINER))
    pen = ImageDraw.Draw(canvas)
    points = [(float(x * FINER), float(y * FINER)) for x, y in zip(columns, rows, strict=True)]
    for i, ends in enumerate(pairwise(points)):
        strength = 1 - max(0.0, (i - 0.7 * STEPS) / (0.5 * STEPS))
        pen.line(ends, fill=round(255 * strength), width=max(1, round(width * FINER)))
    return np.asarray(canvas.reduce(FINER)) / 255
