"""An integrated circuit soldered on a board."""

import numpy as np

from anomalib_rd.data.demo_images import faults
from anomalib_rd.data.demo_images.canvas import Frame, cover, fog, paint, relief, rgb, shaded, text
from anomalib_rd.data.demo_images.shot import Shot

PINS = 7
PITCH = 20.0
BODY = (152.0, 86.0)
PIN = (8.0, 24.0)


def chip(shot: Shot) -> np.ndarray:
    """A chip: missing_pin, bent_pin, misprint (shifted, turned, faded), scratch."""
    board = Frame.image().placed(
        shot.jitter(6), shot.jitter(6), shot.jitter(2.5), 1 + shot.jitter(0.02)
    )
    image = circuit_board(shot, board)
    part = board.placed(shot.jitter(1.5), shot.jitter(1.5), shot.jitter(0.8))
    light = -125 + shot.jitter(8)
    image = pins(shot, part, image, light)
    distance = part.box(*BODY, corner=5)
    image = shaded(image, -0.55 * np.roll(cover(distance, 9), (5, 4), (0, 1)))
    alpha = cover(distance)
    image = paint(image, package(shot, part, distance, light), alpha)
    image = print_on(shot, part, image)
    if shot.defect == "scratch":
        image = faults.scratch(shot, image, alpha, (20, 60), (0.12, 0.45))
    return image


def sites(part: Frame) -> tuple[np.ndarray, np.ndarray, Frame]:
    """The nearest pin to each pixel (H, W), on which side, and the frame of that pin's site.

    Sites repeat along both sides of the package, so one pass draws all pins; the frame's
    origin lies in the middle of the pin, its v axis points outward.
    """
    nearest = np.clip(np.rint(part.u / PITCH + (PINS - 1) / 2), 0, PINS - 1).astype(int)
    lower = (part.v > 0).astype(int)
    side = (2 * lower - 1).astype(np.float32)
    x = (nearest - np.float32((PINS - 1) / 2)) * np.float32(PITCH)
    v = side * part.v - np.float32(BODY[1] / 2 + PIN[1] / 2 - 3)
    return nearest + PINS * lower, side, Frame(part.u - x, v)


def circuit_board(shot: Shot, board: Frame) -> np.ndarray:
    """Green solder mask (H, W, 3) with traces, vias and pads."""
    mask = shot.tone((0.06, 0.26, 0.16), 0.06)
    grain = 0.02 * fog(shot.rng, 1) + 0.05 * fog(shot.rng, 40)
    image = shaded(np.broadcast_to(mask, (*grain.shape, 3)), grain)
    pin, _, site = sites(board)
    run = (24 + 9 * (np.arange(2 * PINS) * 3 % 4)).astype(np.float32)[pin]
    ways = np.maximum(np.abs(site.u) - 2, np.abs(site.v - run / 2 - 8) - run / 2 - 4)
    via = Frame(site.u, site.v - 18 - run).disc(5)
    image = paint(image, shot.tone((0.11, 0.38, 0.23)), cover(ways))
    image = paint(image, shot.tone((0.72, 0.66, 0.48)), cover(via))
    image = paint(image, rgb(0.03, 0.05, 0.04), cover(via + 2.6))
    solder = shot.tone((0.45, 0.45, 0.46)) * (1 + 0.08 * fog(shot.rng, 4))[..., None]
    return paint(image, solder, cover(site.box(13, 19, 3, 0, 6), 2))


def pins(shot: Shot, part: Frame, image: np.ndarray, light: float) -> np.ndarray:
    """Lay the pins on both long sides of the package over ``image``."""
    pin, side, site = sites(part)
    bright = shot.rng.uniform(0.9, 1.1, 2 * PINS).astype(np.float32)
    lean = np.radians(shot.rng.uniform(-1.2, 1.2, 2 * PINS)).astype(np.float32)
    metal = shot.tone((0.72, 0.73, 0.74)) * bright[pin][..., None]
    odd = int(shot.fault.integers(2 * PINS))
    distance = Frame(site.u - lean[pin] * site.v, site.v).box(*PIN, corner=2)
    if shot.defect in ("missing_pin", "bent_pin"):
        distance = np.where(pin == odd, np.float32(1e3), distance)
    if shot.defect == "bent_pin":
        x = (odd % PINS - (PINS - 1) / 2) * PITCH
        down = 1 if odd >= PINS else -1
        # Turned about where it leaves the package, not about its middle.
        bend = shot.between(7, 22) * shot.fault.choice((-1, 1))
        root = part.placed(x, down * (BODY[1] / 2 - 3), bend)
        distance = np.minimum(distance, root.box(*PIN, corner=2, y=down * PIN[1] / 2))
    image = shaded(image, -0.35 * np.roll(cover(distance, 4), (2, 2), (0, 1)))
    edge = 0.25 * relief(np.clip(-distance, 0, 2.5), light)
    slope = 0.12 * np.clip(site.v / np.float32(PIN[1]), -0.5, 0.5) * side
    return paint(image, shaded(metal, edge + slope), cover(distance))


def package(shot: Shot, part: Frame, distance: np.ndarray, light: float) -> np.ndarray:
    """Moulded black plastic (H, W, 3) with its bevel and the mark of pin 1."""
    grain = 0.04 * fog(shot.rng, 1) + 0.07 * fog(shot.rng, 2.5) + 0.04 * fog(shot.rng, 60)
    plastic = shaded(np.broadcast_to(shot.tone((0.15, 0.15, 0.16), 0.08), (*grain.shape, 3)), grain)
    mark = part.disc(6, -BODY[0] / 2 + 16, BODY[1] / 2 - 16)
    height = np.clip(-distance, 0, 6) - 1.5 * cover(mark, 3)
    return shaded(plastic, 0.30 * relief(height, light))


def print_on(shot: Shot, part: Frame, image: np.ndarray) -> np.ndarray:
    """The printed type and the lot number, which differs from part to part."""
    lot = f"24{shot.rng.integers(1, 53):02d}-TW"
    ink, full = shot.tone((0.74, 0.74, 0.72)), 0.72 + shot.jitter(0.08)
    at = part.placed(4 + shot.jitter(1), -2 + shot.jitter(1), shot.jitter(0.5))
    if shot.defect == "misprint":
        fault = shot.fault.integers(3)
        if fault == 0:
            at = at.placed(shot.between(6, 14), shot.between(-11, -5))
        elif fault == 1:
            at = at.placed(0, 0, shot.between(5, 12) * shot.fault.choice((-1, 1)))
    words = np.maximum(
        at.placed(0, -11).decal(text("RD-4096", 21)), at.placed(0, 14).decal(text(lot, 15))
    )
    if shot.defect == "misprint" and fault == 2:
        words = words * (
            1 - faults.blob(shot, (shot.between(-40, 40), 0), shot.between(14, 26), edge=0.5)
        )
    return paint(image, ink, words * np.float32(full))
