"""Surfaces cut from three CC0 photographs that scikit-image carries: brick, grass, gravel."""

from collections.abc import Callable
from functools import cache

import numpy as np
import skimage.data
from scipy import ndimage

from anomalib_rd.data.demo_images import faults
from anomalib_rd.data.demo_images.canvas import SIZE, Frame, fog, paint, rgb, stroke
from anomalib_rd.data.demo_images.shot import Shot

TRAIN_COLUMNS = 280
"""Columns of the photograph (of 512) that training sees; test images use the others."""

EVERYWHERE = np.ones((SIZE, SIZE), np.float32)


@cache
def photograph(name: str) -> np.ndarray:
    """The grey photograph (512, 512) in [0, 1]; these three ship inside scikit-image's wheel."""
    load: Callable[[], np.ndarray] = getattr(skimage.data, name)
    return load().astype(np.float32) / 255


def cut(
    name: str, rng: np.random.Generator, held_out: bool, turn: float, span: float
) -> np.ndarray:
    """A turned square of about ``span`` pixels of the photograph, as a plane (SIZE, SIZE)."""
    photo = photograph(name)
    zoom = SIZE / span / (1 + rng.uniform(-0.06, 0.06))
    degrees = rng.uniform(-turn, turn)
    c, s = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    reach = SIZE / zoom * (c + s) / 2 + 1
    left, right = (TRAIN_COLUMNS, photo.shape[1]) if held_out else (0, TRAIN_COLUMNS)
    x = rng.uniform(left + reach, right - reach)
    y = rng.uniform(reach, photo.shape[0] - reach)
    frame = Frame.image()
    # Frame.placed magnifies a part; reading the photograph is the inverse, hence 1 / zoom.
    at = frame.placed(0, 0, degrees, zoom)
    return ndimage.map_coordinates(photo, [at.v + y, at.u + x], order=1, mode="nearest")


def coloured(grey: np.ndarray, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Colour a plane from ``dark`` to ``light`` by its brightness: (H, W, 3)."""
    low, high = 0.15, 0.85
    return paint(
        np.broadcast_to(dark, (*grey.shape, 3)), light, np.clip((grey - low) / (high - low), 0, 1)
    )


def brick(shot: Shot) -> np.ndarray:
    """A brick wall: crack, stain (lime bloom), worn (blurred joints), spalled (broken face)."""
    grey = cut("brick", shot.rng, shot.held_out, turn=3, span=180)
    image = coloured(grey, shot.tone((0.26, 0.09, 0.05)), shot.tone((0.92, 0.74, 0.62)))
    image = image * (1 + 0.03 * fog(shot.rng, 40) + 0.02 * fog(shot.rng, 3))[..., None]
    if shot.defect == "crack":
        image = faults.crack(shot, image, EVERYWHERE, strength=(0.2, 0.6))
    elif shot.defect == "stain":
        image = faults.stain(shot, image, EVERYWHERE, (0.78, 0.76, 0.72), (8, 26), (0.15, 0.5))
    elif shot.defect == "worn":
        image = faults.blurred(shot, image, EVERYWHERE, (20, 42), (2.5, 6))
    elif shot.defect == "spalled":
        rough = 1 + 0.15 * fog(shot.fault, 3) + 0.15 * fog(shot.fault, 8)
        inside = np.clip(image.mean((0, 1)) * rough[..., None] * shot.between(0.75, 1.1), 0, 1)
        image = faults.patched(shot, image, EVERYWHERE, inside, (7, 20))
    return image


def grass(shot: Shot) -> np.ndarray:
    """A lawn: dry (yellow), bare (gravel shows), trodden (blurred), wire (a foreign object)."""
    grey = cut("grass", shot.rng, shot.held_out, turn=10, span=160)
    image = coloured(grey, shot.tone((0.05, 0.11, 0.03)), shot.tone((0.66, 0.82, 0.40)))
    image = image * (1 + 0.05 * fog(shot.rng, 50))[..., None]
    if shot.defect == "dry":
        image = faults.discoloured(shot, image, EVERYWHERE, (1.5, 1.03, 0.6), (20, 44), (0.5, 1.0))
    elif shot.defect == "bare":
        image = faults.patched(shot, image, EVERYWHERE, soil(shot), (14, 32), (0.65, 1.0))
    elif shot.defect == "trodden":
        image = faults.blurred(shot, image, EVERYWHERE, (20, 42), (2.5, 5.5))
    elif shot.defect == "wire":
        start = faults.somewhere(shot, EVERYWHERE, 30)
        path = faults.wander(shot, start, shot.between(35, 100), 0.25, steps=20)
        wire = stroke(path, [shot.between(1.6, 3.2)] * len(path))
        shadow = np.roll(wire, (2, 2), (0, 1)) * np.float32(0.5)
        tone = rgb(0.45, 0.47, 0.52) * shot.between(0.4, 1.5)
        image = paint(image * (1 - shadow)[..., None], tone, wire)
    return image


def soil(shot: Shot) -> np.ndarray:
    """Gravelly earth (H, W, 3) of the defect's own."""
    grey = cut("gravel", shot.fault, shot.held_out, turn=10, span=160)
    return coloured(grey, rgb(0.12, 0.10, 0.06), rgb(0.62, 0.60, 0.44))


def gravel(shot: Shot) -> np.ndarray:
    """Crushed stone: oil (dark), leaf (a foreign object), overgrown (moss), fines (smooth)."""
    grey = cut("gravel", shot.rng, shot.held_out, turn=10, span=160)
    image = coloured(grey, shot.tone((0.08, 0.08, 0.09)), shot.tone((0.84, 0.82, 0.79)))
    image = image * (1 + 0.04 * fog(shot.rng, 50))[..., None]
    if shot.defect == "oil":
        image = faults.discoloured(
            shot, image, EVERYWHERE, (0.22, 0.19, 0.18), (16, 38), (0.55, 1.0)
        )
    elif shot.defect == "leaf":
        image = leaf(shot, image)
    elif shot.defect == "overgrown":
        grey = cut("grass", shot.fault, shot.held_out, turn=10, span=160)
        moss = coloured(grey, rgb(0.06, 0.09, 0.05), rgb(0.70, 0.78, 0.55))
        image = faults.patched(shot, image, EVERYWHERE, moss, (13, 30))
    elif shot.defect == "fines":
        image = faults.blurred(shot, image, EVERYWHERE, (16, 38), (2, 5))
    return image


def leaf(shot: Shot, image: np.ndarray) -> np.ndarray:
    """A fallen leaf with its midrib and its shadow on ``image``."""
    x, y = faults.somewhere(shot, EVERYWHERE, 25)
    at = Frame.image().placed(x, y, shot.between(0, 360), shot.between(0.5, 1.1))
    half = 9 * np.clip(1 - (at.u / 22) ** 2, 0, None)
    alpha = np.clip(half - np.abs(at.v) + 0.5, 0, 1) * (np.abs(at.u) < 22)
    vein = np.clip(1 - np.abs(at.v), 0, 1) + 0.4 * np.clip(np.cos(at.u * 1.6 - np.abs(at.v)), 0, 1)
    tone = rgb(0.50, 0.42, 0.24) * shot.between(0.6, 1.2)
    shadow = np.roll(alpha, (3, 3), (0, 1)) * np.float32(0.45)
    body = tone * (0.9 + 0.2 * vein + 0.08 * fog(shot.fault, 4))[..., None]
    return paint(image * (1 - shadow)[..., None], body, alpha)
