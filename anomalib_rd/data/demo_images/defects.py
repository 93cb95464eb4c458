"""Defects of a surface, for any subject: each returns the damaged image.

``where`` (H, W) is the coverage of the surface that can be damaged; nothing outside it changes.
Ranges are (low, high). Strengths go down to what is hard to see: glaring defects alone would
measure nothing.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from anomalib_rd.data.demo_images.drawing import (
    SIZE,
    Frame,
    Scene,
    fog,
    paint,
    relief,
    shaded,
    stroke,
)

Range = tuple[float, float]
Point = tuple[float, float]


def random_point(scene: Scene, where: np.ndarray, margin: int = 6) -> Point:
    """A point of the surface, ``margin`` pixels from its edge if possible."""
    solid = where > 0.95
    inner = ndimage.binary_erosion(solid, iterations=margin)
    rows, columns = np.nonzero(inner if inner.any() else solid)
    i = scene.defect_rng.integers(len(rows))
    return float(columns[i] + 0.5 - SIZE / 2), float(rows[i] + 0.5 - SIZE / 2)


def blob(scene: Scene, at: Point, radius: float, edge: float = 0.35) -> np.ndarray:
    """An irregular spot (H, W) in [0, 1]; ``edge`` is the soft share of its radius."""
    frame = Frame.image().placed(*at, scene.between(0, 180))
    angle = np.arctan2(frame.v, frame.u * np.float32(scene.between(0.7, 1.0)))
    outline = np.ones_like(angle)
    for k in (2, 3, 4, 5, 7):
        outline += np.float32(scene.between(0, 0.3) / k) * np.cos(
            k * angle + np.float32(scene.between(0, 2 * np.pi))
        )
    outline += np.float32(0.22) * fog(scene.defect_rng, radius / 2)
    outline += np.float32(0.10) * fog(scene.defect_rng, 4)
    t = np.clip((outline - np.hypot(frame.u, frame.v) / np.float32(radius)) / edge, 0, 1)
    return t * t * (3 - 2 * t)


def spot(scene: Scene, where: np.ndarray, radius: Range, edge: float = 0.35) -> np.ndarray:
    """A blob somewhere on the surface."""
    return blob(scene, random_point(scene, where), scene.between(*radius), edge) * where


def wander(scene: Scene, start: Point, length: float, bend: float, steps: int) -> list[Point]:
    """A line from ``start`` whose heading changes by about ``bend`` radians a step."""
    heading = scene.between(0, 2 * np.pi)
    points = [start]
    for turn in scene.defect_rng.normal(0, bend, steps):
        heading += turn
        x, y = points[-1]
        step = length / steps
        points.append((x + step * np.cos(heading), y + step * np.sin(heading)))
    return points


def scratch(
    scene: Scene, image: np.ndarray, where: np.ndarray, length: Range, strength: Range
) -> np.ndarray:
    """A thin groove: bright on one flank, dark on the other."""
    points = wander(scene, random_point(scene, where), scene.between(*length), 0.05, steps=14)
    width = scene.between(0.8, 1.9)
    groove = stroke(points, list(np.linspace(width, width * 0.5, len(points)))) * where
    flank = np.roll(groove, (1, 1), (0, 1)) * where
    deep = np.float32(scene.between(*strength))
    bright = paint(image, np.ones(3), groove * deep)
    return shaded(bright, -deep * np.clip(flank - groove, 0, 1))


def crack(
    scene: Scene, image: np.ndarray, where: np.ndarray, length: Range, strength: Range
) -> np.ndarray:
    """A jagged dark line with a branch."""
    trunk = wander(scene, random_point(scene, where), scene.between(*length), 0.45, steps=16)
    fork = trunk[int(scene.defect_rng.integers(4, 12))]
    branch = wander(scene, fork, scene.between(8, 25), 0.5, steps=6)
    width = scene.between(0.9, 2.0)
    line = np.maximum(
        stroke(trunk, list(np.linspace(width, 0.5, len(trunk)))),
        stroke(branch, [width * 0.6] * len(branch)),
    )
    return shaded(image, -np.float32(scene.between(*strength)) * line * where)


def stain(
    scene: Scene,
    image: np.ndarray,
    where: np.ndarray,
    colour: Sequence[float],
    radius: Range,
    strength: Range,
) -> np.ndarray:
    """An uneven, translucent spot of another colour."""
    alpha = spot(scene, where, radius)
    uneven = np.clip(1 + 0.25 * fog(scene.defect_rng, 5), 0.3, 1.2)
    return paint(image, np.asarray(colour), alpha * uneven * np.float32(scene.between(*strength)))


def discolour(
    scene: Scene,
    image: np.ndarray,
    where: np.ndarray,
    tint: Sequence[float],
    radius: Range,
    strength: Range,
) -> np.ndarray:
    """A region whose colour is multiplied by ``tint``, with a soft edge."""
    other = image * np.asarray(tint, np.float32)
    return patch(scene, image, where, other, radius, strength, edge=0.6)


def patch(
    scene: Scene,
    image: np.ndarray,
    where: np.ndarray,
    other: np.ndarray,
    radius: Range,
    strength: Range = (0.5, 1.0),
    edge: float = 0.2,
) -> np.ndarray:
    """A patch of another surface, more or less opaque."""
    alpha = spot(scene, where, radius, edge)
    return paint(image, other, alpha * np.float32(scene.between(*strength)))


def blur(
    scene: Scene, image: np.ndarray, where: np.ndarray, radius: Range, sigma: Range
) -> np.ndarray:
    """A patch whose structure is worn away."""
    alpha = spot(scene, where, radius)
    width = scene.between(*sigma)
    return paint(image, ndimage.gaussian_filter(image, (width, width, 0)), alpha)


def dent(
    scene: Scene,
    image: np.ndarray,
    where: np.ndarray,
    light: float,
    radius: Range,
    strength: Range,
) -> np.ndarray:
    """A shallow hollow, visible by its shading only."""
    size = scene.between(*radius)
    at = Frame.image().placed(*random_point(scene, where), scene.between(0, 180))
    distance = np.hypot(at.u, at.v * np.float32(scene.between(1, 1.6))) / np.float32(size)
    hollow = -size * np.clip(1 - distance**2, 0, 1) ** 2
    return shaded(image, np.float32(scene.between(*strength)) * 0.5 * relief(hollow, light) * where)
