"""A turned steel washer on a dark mat."""

import numpy as np

from anomalib_rd.data.demo_images import faults
from anomalib_rd.data.demo_images.canvas import Frame, cover, fog, lines, paint, relief, shaded
from anomalib_rd.data.demo_images.shot import Shot

OUTER, INNER = 86.0, 40.0
BEVEL = 5.0


def washer(shot: Shot) -> np.ndarray:
    """A washer: scratch, rust, notch (a piece broken out), off_centre (hole misplaced)."""
    mat = shot.tone((0.15, 0.16, 0.19), 0.08)
    grain = 0.08 * fog(shot.rng, 1.5) + 0.08 * fog(shot.rng, 30)
    image = shaded(np.broadcast_to(mat, (*grain.shape, 3)), grain)
    frame = Frame.image().placed(
        shot.jitter(7), shot.jitter(7), shot.jitter(180), 1 + shot.jitter(0.03)
    )
    distance = ring(shot, frame)
    alpha = cover(distance)
    shadow = np.roll(cover(distance, 12), (6, 5), (0, 1))
    image = paint(shaded(image, -0.6 * shadow), steel(shot, frame, distance), alpha)
    if shot.defect == "scratch":
        image = faults.scratch(shot, image, alpha, (22, 60), (0.15, 0.5))
    elif shot.defect == "rust":
        image = faults.stain(shot, image, alpha, (0.42, 0.22, 0.10), (6, 17), (0.2, 0.65))
    return image


def ring(shot: Shot, frame: Frame) -> np.ndarray:
    """Signed distance to the washer's metal (H, W), with the defects of its outline."""
    x = y = 0.0
    if shot.defect == "off_centre":
        towards, far = shot.between(0, 2 * np.pi), shot.between(7, 16)
        x, y = far * np.cos(towards), far * np.sin(towards)
    distance = np.maximum(frame.disc(OUTER), -frame.disc(INNER, x, y))
    if shot.defect == "notch":
        angle, size = shot.between(0, 2 * np.pi), shot.between(4, 13)
        bite = frame.placed(OUTER * np.cos(angle), OUTER * np.sin(angle), np.degrees(angle))
        wavy = 0.8 * np.cos(bite.v * 0.9) + 0.6 * np.cos(bite.v * 0.5 + 1)
        distance = np.maximum(distance, -(bite.disc(size) + wavy))
    return distance


def steel(shot: Shot, frame: Frame, distance: np.ndarray) -> np.ndarray:
    """The metal's look (H, W, 3): lathe rings, the glints of a turned face, bevelled edges."""
    radius, angle = np.hypot(frame.u, frame.v), np.arctan2(frame.v, frame.u)
    glint = 0.16 * np.cos(2 * angle + np.float32(shot.jitter(0.5)))
    rings = 0.05 * lines(shot.rng, 512, 0.8, radius * 3)
    # Brushing is cut short along the turn: rings that fade in and out.
    rings *= 1 + 0.6 * lines(shot.rng, 128, 3, angle * (64 / np.pi))
    height = np.clip(-distance, 0, BEVEL)
    shade = glint + rings + 0.35 * relief(height, -125 + shot.jitter(8)) + 0.02 * fog(shot.rng, 20)
    return shaded(np.broadcast_to(shot.tone((0.60, 0.62, 0.65)), (*shade.shape, 3)), shade)
