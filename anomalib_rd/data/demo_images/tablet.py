"""A pressed tablet in the pocket of a blue blister tray."""

import numpy as np

from anomalib_rd.data.demo_images import faults
from anomalib_rd.data.demo_images.canvas import Frame, cover, fog, paint, relief, shaded, text
from anomalib_rd.data.demo_images.shot import Shot

LENGTH, WIDTH = 168.0, 92.0
DOME = 15.0


def tablet(shot: Shot) -> np.ndarray:
    """A tablet: crack, chipped (edge broken off), spot (colour), imprint (shifted or faint)."""
    light = -125 + shot.jitter(8)
    tray = Frame.image().placed(shot.jitter(4), shot.jitter(4), shot.jitter(2))
    image = pocket(shot, tray, light)
    pill = tray.placed(shot.jitter(4), shot.jitter(4), shot.jitter(6), 1 + shot.jitter(0.02))
    distance = pill.box(LENGTH, WIDTH, corner=WIDTH / 2)
    alpha = cover(distance)
    image = shaded(image, -0.5 * np.roll(cover(distance, 14), (7, 6), (0, 1)))
    image = paint(image, surface(shot, pill, distance, light), alpha)
    if shot.defect == "crack":
        image = faults.crack(shot, image, alpha, (35, 80), (0.22, 0.6))
    elif shot.defect == "spot":
        tone = ((0.55, 0.40, 0.22), (0.35, 0.38, 0.45), (0.75, 0.45, 0.45))[shot.fault.integers(3)]
        image = faults.stain(shot, image, alpha, tone, (7, 16), (0.25, 0.65))
    return image


def pocket(shot: Shot, tray: Frame, light: float) -> np.ndarray:
    """The tray (H, W, 3), its hollow shaded from the rim."""
    grain = 0.015 * fog(shot.rng, 1) + 0.04 * fog(shot.rng, 25)
    image = shaded(np.broadcast_to(shot.tone((0.16, 0.29, 0.45), 0.05), (*grain.shape, 3)), grain)
    rim = tray.box(212, 136, corner=66)
    return shaded(image, 0.30 * relief(5 * cover(rim, 16), light + 180) - 0.18 * cover(rim, 20))


def surface(shot: Shot, pill: Frame, distance: np.ndarray, light: float) -> np.ndarray:
    """The tablet's face (H, W, 3): dome, score line, imprint, speckles; chipped if it is."""
    powder = 0.012 * fog(shot.rng, 1.5) + 0.015 * fog(shot.rng, 6)
    white = shot.tone((0.86, 0.83, 0.77), 0.02)
    image = shaded(np.broadcast_to(white, (*powder.shape, 3)), powder)
    speckle = np.clip(fog(shot.rng, 2.5) * fog(shot.rng, 5) - 2.2, 0, 1.2)
    image = paint(image, shot.tone((0.62, 0.45, 0.36)), speckle * np.float32(0.24))
    dome = DOME * np.sqrt(np.clip(1 - (1 + np.clip(distance, -24, 0) / 24) ** 2, 0, 1))
    score = 2.2 * cover(np.abs(pill.u) - 1.8, 3)
    height = dome - score - 1.6 * imprint(shot, pill)
    if shot.defect == "chipped":
        height = height - broken(shot, pill)
    return shaded(image, 0.22 * np.clip(relief(height, light), -2, 1.2))


def imprint(shot: Shot, pill: Frame) -> np.ndarray:
    """Depth (H, W) in [0, 1] of the pressed letters on both sides of the score line."""
    depth = 1 + shot.jitter(0.15)
    left, right = pill.placed(-38, 0), pill.placed(38, 0)
    if shot.defect == "imprint":
        fault = shot.fault.integers(3)
        if fault == 0:
            right = right.placed(0, 0, shot.between(12, 35) * shot.fault.choice((-1, 1)))
        elif fault == 1:
            left = left.placed(shot.between(-8, 3), shot.between(6, 12))
        else:
            depth *= shot.between(0.0, 0.35)
    words = left.decal(text("RD", 32)) + right.decal(text("50", 32))
    return words * np.float32(depth)


def broken(shot: Shot, pill: Frame) -> np.ndarray:
    """How much (H, W, pixels of height) has broken off at the edge, rough inside."""
    angle = shot.between(0, 2 * np.pi)
    x, y = np.cos(angle) * LENGTH / 2, np.sin(angle) * WIDTH / 2
    # The nearest point of the outline: straight sides, round ends.
    middle = float(np.clip(x, -(LENGTH - WIDTH) / 2, (LENGTH - WIDTH) / 2))
    reach = float(np.hypot(x - middle, y))
    x, y = middle + (x - middle) * WIDTH / 2 / reach, y * WIDTH / 2 / reach
    bite = pill.disc(shot.between(9, 20), x, y) + 1.2 * fog(shot.fault, 7)
    rough = 4 + 1.3 * fog(shot.fault, 2.5) + 1.5 * fog(shot.fault, 6)
    return cover(bite, 2.5) * rough * np.float32(shot.between(0.5, 1.2))
