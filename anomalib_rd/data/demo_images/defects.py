"""Defects of a surface, for any subject.

Ranges are (low, high). Some defects are hard to see: obvious ones alone would not distinguish
between methods.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Surface:
    """A surface in an image (H, W, 3) and its coverage ``where`` (H, W).

    Methods named after a defect return the damaged image; outside of the surface it is unchanged.
    """

    scene: Scene
    image: np.ndarray
    where: np.ndarray

    def random_point(self, margin: int = 6) -> Point:
        """A point of the surface, ``margin`` pixels from its edge if possible."""
        solid = self.where > 0.95
        inner = ndimage.binary_erosion(solid, iterations=margin)
        rows, columns = np.nonzero(inner if inner.any() else solid)
        i = self.scene.defect_rng.integers(len(rows))
        return float(columns[i] + 0.5 - SIZE / 2), float(rows[i] + 0.5 - SIZE / 2)

    def spot(self, radius: Range, edge: float = 0.35) -> np.ndarray:
        """A blob somewhere on the surface: (H, W)."""
        point, size = self.random_point(), self.scene.between(*radius)
        return blob(self.scene, point, size, edge) * self.where

    def scratch(self, length: Range, strength: Range) -> np.ndarray:
        """A thin groove: bright on one flank, dark on the other."""
        point, far = self.random_point(), self.scene.between(*length)
        points = wander(self.scene, point, far, 0.05, steps=14)
        width = self.scene.between(0.8, 1.9)
        groove = stroke(points, list(np.linspace(width, width * 0.5, len(points)))) * self.where
        flank = np.roll(groove, (1, 1), (0, 1)) * self.where
        depth = np.float32(self.scene.between(*strength))
        bright = paint(self.image, np.ones(3), groove * depth)
        return shaded(bright, -depth * np.clip(flank - groove, 0, 1))

    def crack(self, length: Range, strength: Range) -> np.ndarray:
        """A jagged dark line with a branch."""
        point, far = self.random_point(), self.scene.between(*length)
        trunk = wander(self.scene, point, far, 0.45, steps=16)
        fork = trunk[int(self.scene.defect_rng.integers(4, 12))]
        branch = wander(self.scene, fork, self.scene.between(8, 25), 0.5, steps=6)
        width = self.scene.between(0.9, 2.0)
        line = np.maximum(
            stroke(trunk, list(np.linspace(width, 0.5, len(trunk)))),
            stroke(branch, [width * 0.6] * len(branch)),
        )
        depth = np.float32(self.scene.between(*strength))
        return shaded(self.image, -depth * line * self.where)

    def stain(self, colour: Sequence[float], radius: Range, strength: Range) -> np.ndarray:
        """An uneven, translucent spot of another colour."""
        alpha = self.spot(radius)
        uneven = np.clip(1 + 0.25 * fog(self.scene.defect_rng, 5), 0.3, 1.2)
        opacity = alpha * uneven * np.float32(self.scene.between(*strength))
        return paint(self.image, np.asarray(colour), opacity)

    def discolour(self, tint: Sequence[float], radius: Range, strength: Range) -> np.ndarray:
        """A region whose colour is multiplied by ``tint``, with a soft edge."""
        other = self.image * np.asarray(tint, np.float32)
        return self.patch(other, radius, strength, edge=0.6)

    def patch(
        self, other: np.ndarray, radius: Range, strength: Range = (0.5, 1.0), edge: float = 0.2
    ) -> np.ndarray:
        """A patch of another surface, more or less opaque."""
        alpha = self.spot(radius, edge)
        return paint(self.image, other, alpha * np.float32(self.scene.between(*strength)))

    def blur(self, radius: Range, sigma: Range) -> np.ndarray:
        """A patch whose structure is worn away."""
        alpha = self.spot(radius)
        width = self.scene.between(*sigma)
        return paint(self.image, ndimage.gaussian_filter(self.image, (width, width, 0)), alpha)

    def dent(self, light: float, radius: Range, strength: Range) -> np.ndarray:
        """A shallow hollow, visible by its shading only."""
        size = self.scene.between(*radius)
        at = Frame.image().placed(*self.random_point(), self.scene.between(0, 180))
        distance = np.hypot(at.u, at.v * np.float32(self.scene.between(1, 1.6))) / np.float32(size)
        shade = relief(-size * np.clip(1 - distance**2, 0, 1) ** 2, light)
        depth = np.float32(self.scene.between(*strength)) * 0.5
        return shaded(self.image, depth * shade * self.where)
