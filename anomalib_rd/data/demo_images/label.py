"""A printed paper label on a cardboard box."""

from functools import cache

import numpy as np

from anomalib_rd.data.demo_images import faults
from anomalib_rd.data.demo_images.canvas import (
    DECAL_SCALE,
    Frame,
    cover,
    fog,
    lines,
    paint,
    shaded,
    text,
)
from anomalib_rd.data.demo_images.shot import Shot

WIDTH, HEIGHT = 176.0, 124.0


def label(shot: Shot) -> np.ndarray:
    """A label: torn (corner off), smudge, misprint (part of the print shifted), faded."""
    box = Frame.image().placed(shot.jitter(6), shot.jitter(6), shot.jitter(3))
    card = cardboard(shot, box)
    at = box.placed(shot.jitter(4), shot.jitter(4), shot.jitter(2), 1 + shot.jitter(0.02))
    distance = at.box(WIDTH, HEIGHT, corner=5)
    if shot.defect == "torn":
        distance = np.maximum(distance, torn(shot, at))
    alpha = cover(distance)
    card = shaded(card, -0.4 * np.roll(cover(distance, 5), (2, 2), (0, 1)))
    sheet, ink = paper(shot), printed(shot, at)
    if shot.defect == "faded":
        where = (shot.between(-55, 55), shot.between(-35, 35))
        gone = faults.blob(shot, where, shot.between(12, 28), edge=0.4)
        ink = [plane * (1 - np.float32(shot.between(0.65, 1)) * gone) for plane in ink]
    black, red = ink
    sheet = paint(sheet, shot.tone((0.68, 0.13, 0.12), 0.05), red * np.float32(0.9))
    sheet = paint(sheet, shot.tone((0.11, 0.11, 0.13), 0.05), black * np.float32(0.88))
    image = paint(card, sheet, alpha)
    if shot.defect == "smudge":
        image = faults.stain(shot, image, alpha, (0.30, 0.29, 0.30), (8, 20), (0.18, 0.6))
    return image


def cardboard(shot: Shot, box: Frame) -> np.ndarray:
    """Brown corrugated board (H, W, 3)."""
    shade = 0.035 * np.cos(box.u * np.float32(2 * np.pi / 11) + np.float32(shot.jitter(3)))
    shade = shade + 0.02 * lines(shot.rng, 400, 1, box.u + 200) + 0.025 * fog(shot.rng, 1.5)
    shade = shade + 0.03 * fog(shot.rng, 12)
    return shaded(np.broadcast_to(shot.tone((0.60, 0.45, 0.30), 0.04), (*shade.shape, 3)), shade)


def paper(shot: Shot) -> np.ndarray:
    """White paper (H, W, 3), not quite flat."""
    shade = 0.008 * fog(shot.rng, 2) + 0.015 * fog(shot.rng, 50)
    return shaded(np.broadcast_to(shot.tone((0.88, 0.88, 0.85), 0.015), (*shade.shape, 3)), shade)


def printed(shot: Shot, at: Frame) -> list[np.ndarray]:
    """Coverage (H, W) by black and by red ink; the lot differs from box to box."""
    lot = f"LOT 24-{shot.rng.integers(1, 53):02d}"
    places = {"band": (0.0, -44.0), "title": (-34.0, -44.0), "name": (-36.0, -14.0)}
    places |= {"lot": (-36.0, 8.0), "bars": (-26.0, 38.0), "sign": (56.0, 8.0)}
    frames = {name: at.placed(*place) for name, place in places.items()}
    if shot.defect == "misprint":
        name = str(shot.fault.choice(["title", "name", "lot", "bars", "sign"]))
        turn = shot.between(4, 10) * shot.fault.choice((-1, 1))
        x, y = shot.between(-8, 8), shot.between(3, 7) * shot.fault.choice((-1, 1))
        frames[name] = frames[name].placed(x, y, turn)
    title = frames["title"].decal(text("ANOMA", 19))
    sign = np.abs(frames["sign"].box(38, 38, 6)) - 2
    black = (
        frames["name"].decal(text("Bearing 608", 15))
        + frames["lot"].decal(text(lot, 13))
        + frames["bars"].decal(barcode())
        + cover(sign)
        + frames["sign"].decal(text("A4", 22))
    )
    red = cover(frames["band"].box(WIDTH - 14, 24, 3)) * (1 - title)
    return [np.clip(black, 0, 1), np.clip(red, 0, 1)]


@cache
def barcode() -> np.ndarray:
    """The product's bars as a decal (h, w)."""
    code = [int(bit) for bit in f"101{0x2C5E9A6D3B71:048b}101"]
    bars = np.repeat(np.array(code, np.float32), DECAL_SCALE * 2)
    return np.pad(np.tile(bars, (22 * DECAL_SCALE, 1)), 2)


def torn(shot: Shot, at: Frame) -> np.ndarray:
    """Signed distance (H, W) that cuts a ragged corner off the paper."""
    corner = shot.fault.choice((-1, 1), 2)
    x, y = corner[0] * WIDTH / 2, corner[1] * HEIGHT / 2
    tilt = np.radians(shot.between(25, 65))
    inward = -corner[0] * np.cos(tilt) * (at.u - x) - corner[1] * np.sin(tilt) * (at.v - y)
    return np.float32(shot.between(6, 20)) + 1.3 * fog(shot.fault, 6) - inward.astype(np.float32)
