"""Defects of a surface, for any subject: each takes an image and gives the damaged one.

``where`` (H, W) is the coverage of the surface that can be damaged; nothing outside it
changes. Strengths are drawn down to what is hard to see: a set of glaring defects only
would measure nothing.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from anomalib_rd.data.demo_images.canvas import (
    SIZE,
    Frame,
    fog,
    paint,
    relief,
    shaded,
    stroke,
)
from anomalib_rd.data.demo_images.shot import Shot

Points = list[tuple[float, float]]


def somewhere(shot: Shot, where: np.ndarray, margin: int = 6) -> tuple[float, float]:
    """A point of the surface, ``margin`` pixels from its edge if there is room."""
    solid = where > 0.95
    inner = ndimage.binary_erosion(solid, iterations=margin)
    rows, columns = np.nonzero(inner if inner.any() else solid)
    i = shot.fault.integers(len(rows))
    return float(columns[i] + 0.5 - SIZE / 2), float(rows[i] + 0.5 - SIZE / 2)


def blob(shot: Shot, at: tuple[float, float], radius: float, edge: float = 0.35) -> np.ndarray:
    """An irregular spot (H, W) in [0, 1]; ``edge`` is the soft share of its radius."""
    frame = Frame.image().placed(*at, shot.between(0, 180))
    angle = np.arctan2(frame.v, frame.u * np.float32(shot.between(0.7, 1.0)))
    outline = np.ones_like(angle)
    for k in (2, 3, 4, 5, 7):
        outline += np.float32(shot.between(0, 0.3) / k) * np.cos(
            k * angle + np.float32(shot.between(0, 2 * np.pi))
        )
    outline += np.float32(0.22) * fog(shot.fault, radius / 2)
    outline += np.float32(0.10) * fog(shot.fault, 4)
    t = np.clip((outline - np.hypot(frame.u, frame.v) / np.float32(radius)) / edge, 0, 1)
    return t * t * (3 - 2 * t)


def wander(
    shot: Shot, start: tuple[float, float], length: float, bend: float, steps: int = 14
) -> Points:
    """A line from ``start`` whose heading changes by about ``bend`` radians a step."""
    heading = shot.between(0, 2 * np.pi)
    points = [start]
    for turn in shot.fault.normal(0, bend, steps):
        heading += turn
        x, y = points[-1]
        step = length / steps
        points.append((x + step * np.cos(heading), y + step * np.sin(heading)))
    return points


def scratch(
    shot: Shot,
    image: np.ndarray,
    where: np.ndarray,
    length: tuple[float, float] = (25, 75),
    strength: tuple[float, float] = (0.12, 0.45),
) -> np.ndarray:
    """A thin groove: bright on one flank, dark on the other."""
    points = wander(shot, somewhere(shot, where), shot.between(*length), 0.05)
    width = shot.between(0.8, 1.9)
    groove = stroke(points, list(np.linspace(width, width * 0.5, len(points)))) * where
    flank = np.roll(groove, (1, 1), (0, 1)) * where
    deep = np.float32(shot.between(*strength))
    bright = paint(image, np.ones(3), groove * deep)
    return shaded(bright, -deep * np.clip(flank - groove, 0, 1))


def crack(
    shot: Shot,
    image: np.ndarray,
    where: np.ndarray,
    length: tuple[float, float] = (35, 90),
    strength: tuple[float, float] = (0.35, 0.8),
) -> np.ndarray:
    """A jagged dark line with a branch."""
    trunk = wander(shot, somewhere(shot, where), shot.between(*length), 0.45, steps=16)
    fork = trunk[int(shot.fault.integers(4, 12))]
    branch = wander(shot, fork, shot.between(8, 25), 0.5, steps=6)
    width = shot.between(0.9, 2.0)
    line = np.maximum(
        stroke(trunk, list(np.linspace(width, 0.5, len(trunk)))),
        stroke(branch, [width * 0.6] * len(branch)),
    )
    return shaded(image, -np.float32(shot.between(*strength)) * line * where)


def stain(
    shot: Shot,
    image: np.ndarray,
    where: np.ndarray,
    colour: Sequence[float],
    radius: tuple[float, float] = (7, 22),
    strength: tuple[float, float] = (0.2, 0.6),
) -> np.ndarray:
    """An uneven spot of a foreign colour that lets the surface shine through."""
    alpha = blob(shot, somewhere(shot, where), shot.between(*radius)) * where
    uneven = np.clip(1 + 0.25 * fog(shot.fault, 5), 0.3, 1.2)
    return paint(image, np.asarray(colour), alpha * uneven * np.float32(shot.between(*strength)))


def discoloured(
    shot: Shot,
    image: np.ndarray,
    where: np.ndarray,
    tint: Sequence[float],
    radius: tuple[float, float] = (18, 40),
    strength: tuple[float, float] = (0.35, 1.0),
) -> np.ndarray:
    """A region whose colour is multiplied by ``tint``, with a soft edge."""
    alpha = blob(shot, somewhere(shot, where), shot.between(*radius), edge=0.6) * where
    return paint(
        image, image * np.asarray(tint, np.float32), alpha * np.float32(shot.between(*strength))
    )


def blurred(
    shot: Shot,
    image: np.ndarray,
    where: np.ndarray,
    radius: tuple[float, float] = (14, 32),
    sigma: tuple[float, float] = (1.5, 3.5),
) -> np.ndarray:
    """A patch whose structure is worn away."""
    alpha = blob(shot, somewhere(shot, where), shot.between(*radius)) * where
    width = shot.between(*sigma)
    return paint(image, ndimage.gaussian_filter(image, (width, width, 0)), alpha)


def patched(
    shot: Shot,
    image: np.ndarray,
    where: np.ndarray,
    other: np.ndarray,
    radius: tuple[float, float] = (12, 30),
    strength: tuple[float, float] = (0.5, 1.0),
) -> np.ndarray:
    """A patch of another surface, let through more or less."""
    alpha = blob(shot, somewhere(shot, where), shot.between(*radius), edge=0.2) * where
    return paint(image, other, alpha * np.float32(shot.between(*strength)))


def dent(
    shot: Shot,
    image: np.ndarray,
    where: np.ndarray,
    light: float,
    radius: tuple[float, float] = (7, 15),
    strength: tuple[float, float] = (0.5, 1.6),
) -> np.ndarray:
    """A shallow hollow: it shows by its shading only."""
    size = shot.between(*radius)
    at = Frame.image().placed(*somewhere(shot, where), shot.between(0, 180))
    far = np.hypot(at.u, at.v * np.float32(shot.between(1, 1.6))) / np.float32(size)
    hollow = -size * np.clip(1 - far**2, 0, 1) ** 2
    return shaded(image, np.float32(shot.between(*strength)) * 0.5 * relief(hollow, light) * where)
