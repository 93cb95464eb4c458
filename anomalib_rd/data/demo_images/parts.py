"""Drawn parts: button, chip, label, tablet and washer."""

from functools import cache

import numpy as np

from anomalib_rd.data.demo_images.defects import Surface, blob
from anomalib_rd.data.demo_images.drawing import (
    DECAL_SCALE,
    Frame,
    Scene,
    cover,
    fog,
    noise_1d,
    paint,
    relief,
    rgb,
    shaded,
    shadow,
    text,
)

LIGHT = -125.0
"""Degrees from which parts are lit: from the upper left."""

BUTTON_RADIUS, HOLE_RADIUS, HOLE_OFFSET = 82.0, 10.0, 21.0


def button(scene: Scene) -> np.ndarray:
    """A plastic button on woven cloth: closed_hole, shifted_hole, scratch, dent."""
    light = LIGHT + scene.jitter(8)
    image = cloth(scene)
    frame = scene.place(Frame.image(), 6, 12, zoom=0.025)
    distance = frame.disc(BUTTON_RADIUS)
    alpha = cover(distance)
    image = shadow(image, distance, 0.55, 12, (7, 6))
    holes = button_holes(scene, frame)
    face = button_face(scene, frame, distance, holes, light)
    cloth_below = shaded(image, np.float32(-0.72) * cover(holes, 1))
    image = paint(image, face, alpha * (1 - cover(holes)))
    image = paint(image, cloth_below, cover(holes))
    solid = alpha * (1 - cover(holes, 3))
    if scene.defect == "scratch":
        image = Surface(scene, image, solid).scratch((20, 70), (0.07, 0.3))
    elif scene.defect == "dent":
        image = Surface(scene, image, solid).dent(light, (8, 17), (0.35, 1.1))
    return image


def cloth(scene: Scene) -> np.ndarray:
    """Plain weave (H, W, 3): threads over and under, of uneven thickness."""
    weave = scene.place(Frame.image(), 8, 6)
    period = np.float32(2 * np.pi / 9)
    u = weave.u * period + 0.5 * noise_1d(scene.rng, 300, 6, weave.v + 150)
    v = weave.v * period + 0.5 * noise_1d(scene.rng, 300, 6, weave.u + 150)
    warp = np.cos(u) * (1 + 0.5 * np.sign(np.cos(u / 2)) * np.sin(v / 2))
    weft = np.cos(v) * (1 - 0.5 * np.sign(np.cos(v / 2)) * np.sin(u / 2))
    shade = 0.11 * np.maximum(warp, weft) + 0.03 * fog(scene.rng, 1.5) + 0.05 * fog(scene.rng, 30)
    return shaded(scene.tone((0.66, 0.60, 0.50), 0.04), shade.astype(np.float32))


def button_holes(scene: Scene, frame: Frame) -> np.ndarray:
    """Signed distance (H, W) to the four holes."""
    odd = int(scene.defect_rng.integers(4))
    distance = np.full(frame.u.shape, 1e3, np.float32)
    for i in range(4):
        x = HOLE_OFFSET * (1 if i % 2 else -1) + scene.jitter(0.6)
        y = HOLE_OFFSET * (1 if i // 2 else -1) + scene.jitter(0.6)
        radius = HOLE_RADIUS + scene.jitter(0.4)
        if i == odd and scene.defect == "closed_hole":
            # From fully closed to narrowed by a burr.
            radius *= scene.between(-0.6, 0.75)
            if radius <= 2:
                continue
        elif i == odd and scene.defect == "shifted_hole":
            angle, shift = scene.between(0, 2 * np.pi), scene.between(5, 12)
            x, y = x + shift * np.cos(angle), y + shift * np.sin(angle)
        distance = np.minimum(distance, frame.disc(radius, x, y))
    return distance


def button_face(
    scene: Scene, frame: Frame, distance: np.ndarray, holes: np.ndarray, light: float
) -> np.ndarray:
    """Marbled plastic (H, W, 3) with a raised rim and a soft highlight."""
    tone = scene.tone((0.42, 0.13, 0.14), 0.07)
    drift = fog(scene.rng, 22) + 0.5 * fog(scene.rng, 8)
    marble = 0.07 * np.sin(frame.u * 0.05 + 1.6 * drift) + 0.01 * fog(scene.rng, 1)
    rim = np.clip(-distance, 0, 7) - 6 * cover(frame.disc(BUTTON_RADIUS - 20), 14)
    countersunk = -2.5 * cover(holes - 2, 5)
    image = shaded(shaded(tone, marble), 0.30 * relief(rim + countersunk, light))
    # The highlight is half way out towards the light. The frame may be rotated: its axes, from the
    # differences at the image's corner, undo that.
    du, dv = float(frame.u[0, 1] - frame.u[0, 0]), float(frame.v[0, 1] - frame.v[0, 0])
    c, s = np.cos(np.radians(light)), np.sin(np.radians(light))
    reach = BUTTON_RADIUS * 0.5
    highlight = frame.disc(4, reach * (du * c - dv * s), reach * (dv * c + du * s))
    return paint(image, np.ones(3), 0.16 * cover(highlight, 90) ** 2)


PINS, PIN_PITCH = 7, 20.0
CHIP_BODY, PIN = (152.0, 86.0), (8.0, 24.0)


def chip(scene: Scene) -> np.ndarray:
    """A chip on a board: missing_pin, bent_pin, misprint (shifted, rotated, faded), scratch."""
    board = scene.place(Frame.image(), 6, 2.5, zoom=0.02)
    image = circuit_board(scene, board)
    part = scene.place(board, 1.5, 0.8)
    light = LIGHT + scene.jitter(8)
    image = chip_pins(scene, part, image, light)
    distance = part.box(*CHIP_BODY, corner=5)
    image = shadow(image, distance, 0.55, 9, (5, 4))
    alpha = cover(distance)
    image = paint(image, chip_package(scene, part, distance, light), alpha)
    image = chip_print(scene, part, image)
    if scene.defect == "scratch":
        image = Surface(scene, image, alpha).scratch((20, 60), (0.12, 0.45))
    return image


def nearest_pins(part: Frame) -> tuple[np.ndarray, np.ndarray, Frame]:
    """The nearest pin to each pixel (H, W), its side (-1 or 1), and the frame of that pin.

    Pins repeat along both sides of the package, so one pass draws all of them; the frame's origin
    is the middle of the pin, its v axis points outward.
    """
    nearest = np.clip(np.rint(part.u / PIN_PITCH + (PINS - 1) / 2), 0, PINS - 1).astype(int)
    lower = (part.v > 0).astype(int)
    side = (2 * lower - 1).astype(np.float32)
    x = (nearest - np.float32((PINS - 1) / 2)) * np.float32(PIN_PITCH)
    v = side * part.v - np.float32(CHIP_BODY[1] / 2 + PIN[1] / 2 - 3)
    return nearest + PINS * lower, side, Frame(part.u - x, v)


def circuit_board(scene: Scene, board: Frame) -> np.ndarray:
    """Green solder mask (H, W, 3) with traces, vias and pads."""
    mask = scene.tone((0.06, 0.26, 0.16), 0.06)
    image = shaded(mask, 0.02 * fog(scene.rng, 1) + 0.05 * fog(scene.rng, 40))
    pin, _, site = nearest_pins(board)
    run = (24 + 9 * (np.arange(2 * PINS) * 3 % 4)).astype(np.float32)[pin]
    traces = np.maximum(np.abs(site.u) - 2, np.abs(site.v - run / 2 - 8) - run / 2 - 4)
    via = Frame(site.u, site.v - 18 - run).disc(5)
    image = paint(image, scene.tone((0.11, 0.38, 0.23)), cover(traces))
    image = paint(image, scene.tone((0.72, 0.66, 0.48)), cover(via))
    image = paint(image, rgb(0.03, 0.05, 0.04), cover(via + 2.6))
    solder = shaded(scene.tone((0.45, 0.45, 0.46)), 0.08 * fog(scene.rng, 4))
    return paint(image, solder, cover(site.box(13, 19, 3, y=6), 2))


def chip_pins(scene: Scene, part: Frame, image: np.ndarray, light: float) -> np.ndarray:
    """Draw the pins on both long sides of the package."""
    pin, side, site = nearest_pins(part)
    bright = scene.rng.uniform(0.9, 1.1, 2 * PINS).astype(np.float32)
    lean = np.radians(scene.rng.uniform(-1.2, 1.2, 2 * PINS)).astype(np.float32)
    metal = scene.tone((0.72, 0.73, 0.74)) * bright[pin][..., None]
    odd = int(scene.defect_rng.integers(2 * PINS))
    distance = Frame(site.u - lean[pin] * site.v, site.v).box(*PIN, corner=2)
    if scene.defect in ("missing_pin", "bent_pin"):
        distance = np.where(pin == odd, np.float32(1e3), distance)
    if scene.defect == "bent_pin":
        x = (odd % PINS - (PINS - 1) / 2) * PIN_PITCH
        down = 1 if odd >= PINS else -1
        # Rotated about its end at the package, not about its middle.
        bend = scene.between(7, 22) * scene.sign()
        root = part.placed(x, down * (CHIP_BODY[1] / 2 - 3), bend)
        distance = np.minimum(distance, root.box(*PIN, corner=2, y=down * PIN[1] / 2))
    image = shadow(image, distance, 0.35, 4, (2, 2))
    edge = 0.25 * relief(np.clip(-distance, 0, 2.5), light)
    slope = 0.12 * np.clip(site.v / np.float32(PIN[1]), -0.5, 0.5) * side
    return paint(image, shaded(metal, edge + slope), cover(distance))


def chip_package(scene: Scene, part: Frame, distance: np.ndarray, light: float) -> np.ndarray:
    """Moulded black plastic (H, W, 3) with its bevel and the mark of pin 1."""
    grain = 0.04 * fog(scene.rng, 1) + 0.07 * fog(scene.rng, 2.5) + 0.04 * fog(scene.rng, 60)
    plastic = shaded(scene.tone((0.15, 0.15, 0.16), 0.08), grain)
    mark = part.disc(6, -CHIP_BODY[0] / 2 + 16, CHIP_BODY[1] / 2 - 16)
    height = np.clip(-distance, 0, 6) - 1.5 * cover(mark, 3)
    return shaded(plastic, 0.30 * relief(height, light))


def chip_print(scene: Scene, part: Frame, image: np.ndarray) -> np.ndarray:
    """Print the type and the lot number, which differs from part to part."""
    lot = f"24{scene.rng.integers(1, 53):02d}-TW"
    ink, strength = scene.tone((0.74, 0.74, 0.72)), 0.72 + scene.jitter(0.08)
    at = part.placed(4 + scene.jitter(1), -2 + scene.jitter(1), scene.jitter(0.5))
    kind = scene.defect_rng.integers(3) if scene.defect == "misprint" else None
    if kind == 0:
        at = at.placed(scene.between(6, 14), scene.between(-11, -5))
    elif kind == 1:
        at = at.placed(0, 0, scene.between(5, 12) * scene.sign())
    lines = np.maximum(
        at.placed(0, -11).decal(text("RD-4096", 21)), at.placed(0, 14).decal(text(lot, 15))
    )
    if kind == 2:
        x, radius = scene.between(-40, 40), scene.between(14, 26)
        lines = lines * (1 - blob(scene, (x, 0), radius, edge=0.5))
    return paint(image, ink, lines * np.float32(strength))


LABEL_WIDTH, LABEL_HEIGHT = 176.0, 124.0
LABEL_PARTS = {
    "band": (0.0, -44.0),
    "title": (-34.0, -44.0),
    "name": (-36.0, -14.0),
    "lot": (-36.0, 8.0),
    "bars": (-26.0, 38.0),
    "sign": (56.0, 8.0),
}


def label(scene: Scene) -> np.ndarray:
    """A printed label on cardboard: torn (corner off), smudge, misprint (shifted part), faded."""
    box = scene.place(Frame.image(), 6, 3)
    card = cardboard(scene, box)
    at = scene.place(box, 4, 2, zoom=0.02)
    distance = at.box(LABEL_WIDTH, LABEL_HEIGHT, corner=5)
    if scene.defect == "torn":
        distance = np.maximum(distance, torn_corner(scene, at))
    alpha = cover(distance)
    card = shadow(card, distance, 0.4, 5, (2, 2))
    grain = 0.008 * fog(scene.rng, 2) + 0.015 * fog(scene.rng, 50)
    sheet = shaded(scene.tone((0.88, 0.88, 0.85), 0.015), grain)
    black, red = label_print(scene, at)
    if scene.defect == "faded":
        centre = (scene.between(-55, 55), scene.between(-35, 35))
        gone = blob(scene, centre, scene.between(12, 28), edge=0.4)
        black = black * (1 - np.float32(scene.between(0.65, 1)) * gone)
        red = red * (1 - np.float32(scene.between(0.65, 1)) * gone)
    sheet = paint(sheet, scene.tone((0.68, 0.13, 0.12), 0.05), red * np.float32(0.9))
    sheet = paint(sheet, scene.tone((0.11, 0.11, 0.13), 0.05), black * np.float32(0.88))
    image = paint(card, sheet, alpha)
    if scene.defect == "smudge":
        image = Surface(scene, image, alpha).stain((0.30, 0.29, 0.30), (8, 20), (0.18, 0.6))
    return image


def cardboard(scene: Scene, box: Frame) -> np.ndarray:
    """Brown corrugated board (H, W, 3)."""
    shade = 0.035 * np.cos(box.u * np.float32(2 * np.pi / 11) + np.float32(scene.jitter(3)))
    shade = shade + 0.02 * noise_1d(scene.rng, 400, 1, box.u + 200) + 0.025 * fog(scene.rng, 1.5)
    shade = shade + 0.03 * fog(scene.rng, 12)
    return shaded(scene.tone((0.60, 0.45, 0.30), 0.04), shade)


def label_print(scene: Scene, at: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (H, W) by black and by red ink; the lot differs from label to label."""
    lot = f"LOT 24-{scene.rng.integers(1, 53):02d}"
    frames = {name: at.placed(*position) for name, position in LABEL_PARTS.items()}
    if scene.defect == "misprint":
        name = str(scene.defect_rng.choice(["title", "name", "lot", "bars", "sign"]))
        turn = scene.between(4, 10) * scene.sign()
        x, y = scene.between(-8, 8), scene.between(3, 7) * scene.sign()
        frames[name] = frames[name].placed(x, y, turn)
    black = (
        frames["name"].decal(text("Bearing 608", 15))
        + frames["lot"].decal(text(lot, 13))
        + frames["bars"].decal(barcode())
        + cover(np.abs(frames["sign"].box(38, 38, 6)) - 2)
        + frames["sign"].decal(text("A4", 22))
    )
    title = frames["title"].decal(text("ANOMA", 19))
    red = cover(frames["band"].box(LABEL_WIDTH - 14, 24, 3)) * (1 - title)
    return np.clip(black, 0, 1), np.clip(red, 0, 1)


@cache
def barcode() -> np.ndarray:
    """The product's bars as a decal (h, w)."""
    code = [int(bit) for bit in f"101{0x2C5E9A6D3B71:048b}101"]
    bars = np.repeat(np.array(code, np.float32), DECAL_SCALE * 2)
    return np.pad(np.tile(bars, (22 * DECAL_SCALE, 1)), 2)


def torn_corner(scene: Scene, at: Frame) -> np.ndarray:
    """Signed distance (H, W) that cuts a ragged corner off the paper."""
    corner = scene.defect_rng.choice((-1, 1), 2)
    x, y = corner[0] * LABEL_WIDTH / 2, corner[1] * LABEL_HEIGHT / 2
    tilt = np.radians(scene.between(25, 65))
    inward = -corner[0] * np.cos(tilt) * (at.u - x) - corner[1] * np.sin(tilt) * (at.v - y)
    depth = np.float32(scene.between(6, 20))
    return depth + 1.3 * fog(scene.defect_rng, 6) - inward.astype(np.float32)


TABLET_LENGTH, TABLET_WIDTH, TABLET_DOME = 168.0, 92.0, 15.0
TABLET_STAINS = ((0.55, 0.40, 0.22), (0.35, 0.38, 0.45), (0.75, 0.45, 0.45))


def tablet(scene: Scene) -> np.ndarray:
    """A tablet in a blister tray: crack, chipped edge, spot, imprint (shifted or faint)."""
    light = LIGHT + scene.jitter(8)
    tray = scene.place(Frame.image(), 4, 2)
    image = blister(scene, tray, light)
    pill = scene.place(tray, 4, 6, zoom=0.02)
    distance = pill.box(TABLET_LENGTH, TABLET_WIDTH, corner=TABLET_WIDTH / 2)
    alpha = cover(distance)
    image = shadow(image, distance, 0.5, 14, (7, 6))
    image = paint(image, tablet_face(scene, pill, distance, light), alpha)
    if scene.defect == "crack":
        image = Surface(scene, image, alpha).crack((35, 80), (0.22, 0.6))
    elif scene.defect == "spot":
        tone = TABLET_STAINS[scene.defect_rng.integers(3)]
        image = Surface(scene, image, alpha).stain(tone, (7, 16), (0.25, 0.65))
    return image


def blister(scene: Scene, tray: Frame, light: float) -> np.ndarray:
    """The blue tray (H, W, 3), its hollow shaded from the rim."""
    grain = 0.015 * fog(scene.rng, 1) + 0.04 * fog(scene.rng, 25)
    image = shaded(scene.tone((0.16, 0.29, 0.45), 0.05), grain)
    rim = tray.box(212, 136, corner=66)
    return shaded(image, 0.30 * relief(5 * cover(rim, 16), light + 180) - 0.18 * cover(rim, 20))


def tablet_face(scene: Scene, pill: Frame, distance: np.ndarray, light: float) -> np.ndarray:
    """The tablet's face (H, W, 3): dome, score line, imprint, speckles."""
    powder = 0.012 * fog(scene.rng, 1.5) + 0.015 * fog(scene.rng, 6)
    image = shaded(scene.tone((0.86, 0.83, 0.77), 0.02), powder)
    speckle = np.clip(fog(scene.rng, 2.5) * fog(scene.rng, 5) - 2.2, 0, 1.2)
    image = paint(image, scene.tone((0.62, 0.45, 0.36)), speckle * np.float32(0.24))
    dome = TABLET_DOME * np.sqrt(np.clip(1 - (1 + np.clip(distance, -24, 0) / 24) ** 2, 0, 1))
    score = 2.2 * cover(np.abs(pill.u) - 1.8, 3)
    height = dome - score - 1.6 * tablet_imprint(scene, pill)
    if scene.defect == "chipped":
        height = height - chipped_edge(scene, pill)
    return shaded(image, 0.22 * np.clip(relief(height, light), -2, 1.2))


def tablet_imprint(scene: Scene, pill: Frame) -> np.ndarray:
    """Depth (H, W) in [0, 1] of the pressed letters on both sides of the score line."""
    depth = 1 + scene.jitter(0.15)
    left, right = pill.placed(-38, 0), pill.placed(38, 0)
    if scene.defect == "imprint":
        kind = scene.defect_rng.integers(3)
        if kind == 0:
            right = right.placed(0, 0, scene.between(12, 35) * scene.sign())
        elif kind == 1:
            left = left.placed(scene.between(-8, 3), scene.between(6, 12))
        else:
            depth *= scene.between(0.0, 0.35)
    return (left.decal(text("RD", 32)) + right.decal(text("50", 32))) * np.float32(depth)


def chipped_edge(scene: Scene, pill: Frame) -> np.ndarray:
    """Height (H, W), in pixels, that is broken off at the edge, rough inside."""
    angle = scene.between(0, 2 * np.pi)
    x, y = np.cos(angle) * TABLET_LENGTH / 2, np.sin(angle) * TABLET_WIDTH / 2
    # The nearest point of the outline: straight sides, round ends.
    straight = (TABLET_LENGTH - TABLET_WIDTH) / 2
    middle = float(np.clip(x, -straight, straight))
    reach = float(np.hypot(x - middle, y))
    x, y = middle + (x - middle) * TABLET_WIDTH / 2 / reach, y * TABLET_WIDTH / 2 / reach
    bite = pill.disc(scene.between(9, 20), x, y) + 1.2 * fog(scene.defect_rng, 7)
    rough = 4 + 1.3 * fog(scene.defect_rng, 2.5) + 1.5 * fog(scene.defect_rng, 6)
    return cover(bite, 2.5) * rough * np.float32(scene.between(0.5, 1.2))


WASHER_OUTER, WASHER_INNER, WASHER_BEVEL = 86.0, 40.0, 5.0


def washer(scene: Scene) -> np.ndarray:
    """A steel washer on a dark mat: scratch, rust, notch (broken out), off_centre (hole)."""
    mat = scene.tone((0.15, 0.16, 0.19), 0.08)
    image = shaded(mat, 0.08 * fog(scene.rng, 1.5) + 0.08 * fog(scene.rng, 30))
    frame = scene.place(Frame.image(), 7, 180, zoom=0.03)
    distance = washer_outline(scene, frame)
    alpha = cover(distance)
    image = shadow(image, distance, 0.6, 12, (6, 5))
    image = paint(image, washer_face(scene, frame, distance), alpha)
    if scene.defect == "scratch":
        image = Surface(scene, image, alpha).scratch((22, 60), (0.15, 0.5))
    elif scene.defect == "rust":
        image = Surface(scene, image, alpha).stain((0.42, 0.22, 0.10), (6, 17), (0.2, 0.65))
    return image


def washer_outline(scene: Scene, frame: Frame) -> np.ndarray:
    """Signed distance (H, W) to the washer, with the defects of its outline."""
    x = y = 0.0
    if scene.defect == "off_centre":
        angle, shift = scene.between(0, 2 * np.pi), scene.between(7, 16)
        x, y = shift * np.cos(angle), shift * np.sin(angle)
    distance = np.maximum(frame.disc(WASHER_OUTER), -frame.disc(WASHER_INNER, x, y))
    if scene.defect == "notch":
        angle, size = scene.between(0, 2 * np.pi), scene.between(4, 13)
        bite = frame.placed(
            WASHER_OUTER * np.cos(angle), WASHER_OUTER * np.sin(angle), np.degrees(angle)
        )
        wavy = 0.8 * np.cos(bite.v * 0.9) + 0.6 * np.cos(bite.v * 0.5 + 1)
        distance = np.maximum(distance, -(bite.disc(size) + wavy))
    return distance


def washer_face(scene: Scene, frame: Frame, distance: np.ndarray) -> np.ndarray:
    """Turned steel (H, W, 3): lathe rings, glints, bevelled edges."""
    radius, angle = np.hypot(frame.u, frame.v), np.arctan2(frame.v, frame.u)
    glint = 0.16 * np.cos(2 * angle + np.float32(scene.jitter(0.5)))
    rings = 0.05 * noise_1d(scene.rng, 512, 0.8, radius * 3)
    # Rings fade in and out along the turn.
    rings *= 1 + 0.6 * noise_1d(scene.rng, 128, 3, angle * (64 / np.pi))
    bevel = 0.35 * relief(np.clip(-distance, 0, WASHER_BEVEL), LIGHT + scene.jitter(8))
    shade = glint + rings + bevel + 0.02 * fog(scene.rng, 20)
    return shaded(scene.tone((0.60, 0.62, 0.65)), shade)
