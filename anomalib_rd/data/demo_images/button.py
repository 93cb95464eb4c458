"""A plastic button with four holes on woven cloth."""

import numpy as np

from anomalib_rd.data.demo_images import faults
from anomalib_rd.data.demo_images.canvas import Frame, cover, fog, lines, paint, relief, shaded
from anomalib_rd.data.demo_images.shot import Shot

RADIUS = 82.0
HOLE = 10.0
SPACING = 21.0


def button(shot: Shot) -> np.ndarray:
    """A button: closed_hole, shifted_hole, scratch, dent."""
    light = -125 + shot.jitter(8)
    image = cloth(shot)
    frame = Frame.image().placed(
        shot.jitter(6), shot.jitter(6), shot.jitter(12), 1 + shot.jitter(0.025)
    )
    distance = frame.disc(RADIUS)
    alpha = cover(distance)
    image = shaded(image, -0.55 * np.roll(cover(distance, 12), (7, 6), (0, 1)))
    through = holes(shot, frame)
    face = plastic(shot, frame, distance, through, light)
    cloth_below = shaded(image, np.float32(-0.72) * cover(through, 1))
    image = paint(image, face, alpha * (1 - cover(through)))
    image = paint(image, cloth_below, cover(through))
    solid = alpha * (1 - cover(through, 3))
    if shot.defect == "scratch":
        image = faults.scratch(shot, image, solid, (20, 70), (0.07, 0.3))
    elif shot.defect == "dent":
        image = faults.dent(shot, image, solid, light, (8, 17), (0.35, 1.1))
    return image


def cloth(shot: Shot) -> np.ndarray:
    """Plain weave (H, W, 3): threads over and under, of uneven thickness."""
    weave = Frame.image().placed(shot.jitter(8), shot.jitter(8), shot.jitter(6))
    period = np.float32(2 * np.pi / 9)
    u = weave.u * period + 0.5 * lines(shot.rng, 300, 6, weave.v + 150)
    v = weave.v * period + 0.5 * lines(shot.rng, 300, 6, weave.u + 150)
    warp = np.cos(u) * (1 + 0.5 * np.sign(np.cos(u / 2)) * np.sin(v / 2))
    weft = np.cos(v) * (1 - 0.5 * np.sign(np.cos(v / 2)) * np.sin(u / 2))
    shade = 0.11 * np.maximum(warp, weft) + 0.03 * fog(shot.rng, 1.5) + 0.05 * fog(shot.rng, 30)
    tone = shot.tone((0.66, 0.60, 0.50), 0.04)
    return shaded(np.broadcast_to(tone, (*shade.shape, 3)), shade.astype(np.float32))


def holes(shot: Shot, frame: Frame) -> np.ndarray:
    """Signed distance (H, W) to the four holes."""
    odd = int(shot.fault.integers(4))
    distance = np.full(frame.u.shape, 1e3, np.float32)
    for i in range(4):
        x = SPACING * (1 if i % 2 else -1) + shot.jitter(0.6)
        y = SPACING * (1 if i // 2 else -1) + shot.jitter(0.6)
        radius = HOLE + shot.jitter(0.4)
        if i == odd and shot.defect == "closed_hole":
            # From quite closed to narrowed by a burr.
            radius *= shot.between(-0.6, 0.75)
            if radius <= 2:
                continue
        elif i == odd and shot.defect == "shifted_hole":
            towards, far = shot.between(0, 2 * np.pi), shot.between(5, 12)
            x, y = x + far * np.cos(towards), y + far * np.sin(towards)
        distance = np.minimum(distance, frame.disc(radius, x, y))
    return distance


def plastic(
    shot: Shot, frame: Frame, distance: np.ndarray, through: np.ndarray, light: float
) -> np.ndarray:
    """The button's face (H, W, 3): marbled, with a raised rim and a soft highlight."""
    tone = shot.tone((0.42, 0.13, 0.14), 0.07)
    drift = fog(shot.rng, 22) + 0.5 * fog(shot.rng, 8)
    marble = 0.07 * np.sin(frame.u * 0.05 + 1.6 * drift) + 0.01 * fog(shot.rng, 1)
    image = shaded(np.broadcast_to(tone, (*marble.shape, 3)), marble)
    rim = np.clip(-distance, 0, 7) - 6 * cover(frame.disc(RADIUS - 20), 14)
    countersunk = -2.5 * cover(through - 2, 5)
    image = shaded(image, 0.30 * relief(rim + countersunk, light))
    glare = cover(frame.disc(4, *_towards(frame, light)), 90) ** 2
    return paint(image, np.ones(3), 0.16 * glare)


def _towards(frame: Frame, light: float) -> tuple[float, float]:
    """A point of the part half way out, on the side of the light, in the part's own frame."""
    # The frame may be turned: its axes, read off the image's own corner, undo that.
    across = float(frame.u[0, 1] - frame.u[0, 0]), float(frame.v[0, 1] - frame.v[0, 0])
    c, s = np.cos(np.radians(light)), np.sin(np.radians(light))
    reach = RADIUS * 0.5
    return (
        reach * (across[0] * c - across[1] * s),
        reach * (across[1] * c + across[0] * s),
    )
