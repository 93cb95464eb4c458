"""Surfaces cut from three CC0 photographs that scikit-image includes: brick, grass, gravel."""

from collections.abc import Callable
from functools import cache

import numpy as np
import skimage.data
from scipy import ndimage

from anomalib_rd.data.demo_images.defects import Surface, wander
from anomalib_rd.data.demo_images.drawing import SIZE, Frame, Scene, fog, paint, rgb, shaded, stroke

TRAIN_COLUMNS = 280
"""Columns of the photograph (of 512) for training images; test images use the others."""
EVERYWHERE = np.ones((SIZE, SIZE), np.float32)


@cache
def photograph(name: str) -> np.ndarray:
    """The grey photograph (512, 512) in [0, 1]; these three are in scikit-image's wheel."""
    load: Callable[[], np.ndarray] = getattr(skimage.data, name)
    return load().astype(np.float32) / 255


def cut(
    name: str, rng: np.random.Generator, held_out: bool, turn: float = 10, span: float = 160
) -> np.ndarray:
    """A rotated square of about ``span`` pixels of the photograph, as a plane (SIZE, SIZE)."""
    photo = photograph(name)
    zoom = SIZE / span / (1 + rng.uniform(-0.06, 0.06))
    degrees = rng.uniform(-turn, turn)
    c, s = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    reach = SIZE / zoom * (c + s) / 2 + 1
    left, right = (TRAIN_COLUMNS, photo.shape[1]) if held_out else (0, TRAIN_COLUMNS)
    x = rng.uniform(left + reach, right - reach)
    y = rng.uniform(reach, photo.shape[0] - reach)
    # Frame.placed divides by the zoom, so these coordinates are pixels of the photograph.
    at = Frame.image().placed(0, 0, degrees, zoom)
    return ndimage.map_coordinates(photo, [at.v + y, at.u + x], order=1, mode="nearest")


def coloured(grey: np.ndarray, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Colour a plane from ``dark`` to ``light`` by its brightness: (H, W, 3)."""
    low, high = 0.15, 0.85
    return paint(dark, light, np.clip((grey - low) / (high - low), 0, 1))


def brick(scene: Scene) -> np.ndarray:
    """A brick wall: crack, stain (lime bloom), worn (blurred joints), spalled (broken face)."""
    grey = cut("brick", scene.rng, scene.held_out, turn=3, span=180)
    image = coloured(grey, scene.tone((0.26, 0.09, 0.05)), scene.tone((0.92, 0.74, 0.62)))
    image = image * (1 + 0.03 * fog(scene.rng, 40) + 0.02 * fog(scene.rng, 3))[..., None]
    wall = Surface(scene, image, EVERYWHERE)
    match scene.defect:
        case "crack":
            return wall.crack((35, 90), (0.2, 0.6))
        case "stain":
            return wall.stain((0.78, 0.76, 0.72), (8, 26), (0.15, 0.5))
        case "worn":
            return wall.blur((20, 42), (2.5, 6))
        case "spalled":
            rough = 1 + 0.15 * fog(scene.defect_rng, 3) + 0.15 * fog(scene.defect_rng, 8)
            inside = image.mean((0, 1)) * rough[..., None] * scene.between(0.75, 1.1)
            return wall.patch(np.clip(inside, 0, 1), (7, 20))
    return image


def grass(scene: Scene) -> np.ndarray:
    """A lawn: dry (yellow), bare (gravel shows), trodden (blurred), wire (a foreign object)."""
    grey = cut("grass", scene.rng, scene.held_out)
    image = coloured(grey, scene.tone((0.05, 0.11, 0.03)), scene.tone((0.66, 0.82, 0.40)))
    image = shaded(image, 0.05 * fog(scene.rng, 50))
    lawn = Surface(scene, image, EVERYWHERE)
    match scene.defect:
        case "dry":
            return lawn.discolour((1.5, 1.03, 0.6), (20, 44), (0.5, 1.0))
        case "bare":
            grey = cut("gravel", scene.defect_rng, scene.held_out)
            soil = coloured(grey, rgb(0.12, 0.10, 0.06), rgb(0.62, 0.60, 0.44))
            return lawn.patch(soil, (14, 32), (0.65, 1.0))
        case "trodden":
            return lawn.blur((20, 42), (2.5, 5.5))
        case "wire":
            path = wander(scene, lawn.random_point(30), scene.between(35, 100), 0.25, steps=20)
            wire = stroke(path, [scene.between(1.6, 3.2)] * len(path))
            dark = np.roll(wire, (2, 2), (0, 1)) * np.float32(0.5)
            tone = rgb(0.45, 0.47, 0.52) * scene.between(0.4, 1.5)
            return paint(image * (1 - dark)[..., None], tone, wire)
    return image


def gravel(scene: Scene) -> np.ndarray:
    """Crushed stone: oil (dark), leaf (a foreign object), overgrown (moss), fines (smooth)."""
    grey = cut("gravel", scene.rng, scene.held_out)
    image = coloured(grey, scene.tone((0.08, 0.08, 0.09)), scene.tone((0.84, 0.82, 0.79)))
    image = shaded(image, 0.04 * fog(scene.rng, 50))
    stones = Surface(scene, image, EVERYWHERE)
    match scene.defect:
        case "oil":
            return stones.discolour((0.22, 0.19, 0.18), (16, 38), (0.55, 1.0))
        case "leaf":
            return leaf(stones)
        case "overgrown":
            grey = cut("grass", scene.defect_rng, scene.held_out)
            moss = coloured(grey, rgb(0.06, 0.09, 0.05), rgb(0.70, 0.78, 0.55))
            return stones.patch(moss, (13, 30))
        case "fines":
            return stones.blur((16, 38), (2, 5))
    return image


def leaf(ground: Surface) -> np.ndarray:
    """A fallen leaf with its midrib and its shadow."""
    scene = ground.scene
    x, y = ground.random_point(25)
    at = Frame.image().placed(x, y, scene.between(0, 360), scene.between(0.5, 1.1))
    half = 9 * np.clip(1 - (at.u / 22) ** 2, 0, None)
    alpha = np.clip(half - np.abs(at.v) + 0.5, 0, 1) * (np.abs(at.u) < 22)
    vein = np.clip(1 - np.abs(at.v), 0, 1) + 0.4 * np.clip(np.cos(at.u * 1.6 - np.abs(at.v)), 0, 1)
    tone = rgb(0.50, 0.42, 0.24) * scene.between(0.6, 1.2)
    dark = np.roll(alpha, (3, 3), (0, 1)) * np.float32(0.45)
    body = tone * (0.9 + 0.2 * vein + 0.08 * fog(scene.defect_rng, 4))[..., None]
    return paint(ground.image * (1 - dark)[..., None], body, alpha)
