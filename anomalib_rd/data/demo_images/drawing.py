"""Antialiased drawing on float images, and the camera that photographs them.

Shapes are signed distances (negative inside, in pixels) over the coordinates of a `Frame`; `cover`
converts a distance to an antialiased coverage. Images are RGB in [0, 1], (SIZE, SIZE, 3) float32,
planes (SIZE, SIZE) float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

SIZE = 256
DECAL_SCALE = 2
"""Pixels of a decal per pixel of the image."""
NOISE = 0.004
"""Standard deviation of the sensor noise, as a fraction of full scale."""


@dataclass(frozen=True)
class Frame:
    """Coordinates (u to the right, v down, in pixels) of a part in the image."""

    u: np.ndarray
    v: np.ndarray

    @classmethod
    def image(cls) -> "Frame":
        """The frame of the image itself, its origin in the centre."""
        axis = np.arange(SIZE, dtype=np.float32) + 0.5 - SIZE / 2
        return cls(*np.meshgrid(axis, axis))

    def placed(self, x: float, y: float, degrees: float = 0.0, zoom: float = 1.0) -> "Frame":
        """The frame of a part at (x, y) of this one, rotated and magnified."""
        c, s = np.cos(np.radians(degrees)) / zoom, np.sin(np.radians(degrees)) / zoom
        u, v = self.u - np.float32(x), self.v - np.float32(y)
        return Frame(np.float32(c) * u + np.float32(s) * v, np.float32(c) * v - np.float32(s) * u)

    def disc(self, radius: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
        """Signed distance to a disc: (H, W)."""
        return np.hypot(self.u - np.float32(x), self.v - np.float32(y)) - np.float32(radius)

    def box(self, width: float, height: float, corner: float = 0.0, y: float = 0.0) -> np.ndarray:
        """Signed distance to a rectangle with rounded corners: (H, W)."""
        p = np.abs(self.u) - np.float32(width / 2 - corner)
        q = np.abs(self.v - np.float32(y)) - np.float32(height / 2 - corner)
        outside = np.hypot(np.maximum(p, 0), np.maximum(q, 0))
        return outside + np.minimum(np.maximum(p, q), 0) - np.float32(corner)

    def decal(self, picture: np.ndarray) -> np.ndarray:
        """A picture (h, w) at `DECAL_SCALE`, centred on the origin, as coverage: (H, W)."""
        rows = self.v * DECAL_SCALE + (picture.shape[0] - 1) / 2
        columns = self.u * DECAL_SCALE + (picture.shape[1] - 1) / 2
        return ndimage.map_coordinates(picture, [rows, columns], order=1)


@dataclass(frozen=True)
class Scene:
    """The random numbers and the defect of one image.

    ``rng`` drives all normal variation, ``defect_rng`` only the defect: a subject draws the same
    numbers from ``rng`` with and without a defect, so that nothing else changes.
    """

    rng: np.random.Generator
    defect_rng: np.random.Generator
    defect: str = "good"
    held_out: bool = False
    """Whether this is a test image: it shows a part of the photograph that training never sees."""

    def jitter(self, amount: float) -> float:
        """A normal variation, uniform in [-amount, amount]."""
        return float(self.rng.uniform(-amount, amount))

    def tone(self, colour: Sequence[float], spread: float = 0.03) -> np.ndarray:
        """The RGB ``colour`` in [0, 1], varied more in brightness than in hue: (3,)."""
        hue = 1 + self.rng.uniform(-spread, spread, 3) / 2
        return (np.asarray(colour) * hue * (1 + self.jitter(spread))).astype(np.float32)

    def place(self, frame: Frame, offset: float, degrees: float, zoom: float = 0.0) -> Frame:
        """A part's frame in ``frame``, varied by up to these amounts."""
        x, y, turn = self.jitter(offset), self.jitter(offset), self.jitter(degrees)
        return frame.placed(x, y, turn, 1 + self.jitter(zoom) if zoom else 1.0)

    def between(self, low: float, high: float) -> float:
        """A property of the defect, uniform in [low, high]."""
        return float(self.defect_rng.uniform(low, high))

    def sign(self) -> int:
        """-1 or 1, for the defect."""
        return self.defect_rng.choice((-1, 1))


def photograph_scene(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photograph an image (H, W, 3) in [0, 1] with light, lens and noise: uint8, same shape.

    Pixels are independent, so two images that agree at a pixel still do.
    """
    frame = Frame.image()
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.10)
    along = (np.cos(angle) * frame.u + np.sin(angle) * frame.v) / (SIZE / 2)
    vignette = rng.uniform(0.02, 0.08) * (frame.u**2 + frame.v**2) / (SIZE / 2) ** 2
    light = rng.uniform(0.93, 1.07) * (1 + slope * along - vignette)
    balance = 1 + rng.uniform(-0.02, 0.02, 3)
    photo = image * light[..., None].astype(np.float32) * balance.astype(np.float32)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(NOISE)
    # Seven bits: the eighth would be pure noise, and a quarter of the file size.
    return np.clip(np.rint((photo + noise) * 127), 0, 127).astype(np.uint8) * 2


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """A colour (3,)."""
    return np.array((red, green, blue), np.float32)


def cover(distance: np.ndarray, soft: float = 1.0) -> np.ndarray:
    """Coverage in [0, 1] of a shape, its edge ``soft`` pixels wide."""
    return np.clip(0.5 - distance / np.float32(soft), 0, 1)


def paint(image: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blend a colour (3,) or an image over ``image`` with opacity ``alpha`` (H, W)."""
    return image + alpha[..., None] * (colour.astype(np.float32) - image)


def shaded(image: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """Brighten or darken an image or a colour (3,) by the fraction ``shade`` (H, W)."""
    return image * (1 + shade[..., None])


def shadow(
    image: np.ndarray, distance: np.ndarray, depth: float, soft: float, offset: tuple[int, int]
) -> np.ndarray:
    """The shadow of a shape on ``image``, shifted by ``offset`` (rows, columns)."""
    return shaded(image, -depth * np.roll(cover(distance, soft), offset, (0, 1)))


def fog(rng: np.random.Generator, cell: float) -> np.ndarray:
    """Smooth noise (H, W), features of about ``cell`` pixels, mean 0, standard deviation 1."""
    if cell <= 1:
        return rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    across = SIZE / cell
    n = int(np.ceil(across)) + 4
    coarse = Image.fromarray(rng.standard_normal((n, n), dtype=np.float32))
    # Shifted each time, because a fixed grid would be visible over many images.
    x, y = rng.uniform(0, 3, 2)
    box = (x, y, x + across, y + across)
    fine = coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(fine) * np.float32(1.3)


def relief(height: np.ndarray, degrees: float) -> np.ndarray:
    """Shade (H, W) of a surface of that height, lit from ``degrees`` (0 right, 90 below)."""
    dy, dx = np.gradient(height)
    light = np.radians(degrees)
    return -np.float32(np.cos(light)) * dx - np.float32(np.sin(light)) * dy


def noise_1d(
    rng: np.random.Generator, samples: int, smooth: float, positions: np.ndarray
) -> np.ndarray:
    """One-dimensional noise of standard deviation 1 at ``positions`` (pixels, any shape)."""
    profile = ndimage.gaussian_filter1d(rng.standard_normal(samples), smooth, mode="wrap")
    profile /= profile.std()
    return np.interp(positions, np.arange(samples), profile, period=samples).astype(np.float32)


@lru_cache(maxsize=256)
def text(line: str, height: float) -> np.ndarray:
    """A line of text, ``height`` pixels high, as a decal (h, w)."""
    # Drawn at twice a decal's scale and halved, for the same antialiasing on every platform.
    font = ImageFont.load_default(height * DECAL_SCALE * 2)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(line))
    sheet = Image.new("L", (right - left + 16, bottom - top + 16))
    ImageDraw.Draw(sheet).text((8 - left, 8 - top), line, fill=255, font=font)
    return np.asarray(sheet.reduce(2), np.float32) / 255


def stroke(points: Sequence[tuple[float, float]], widths: Sequence[float]) -> np.ndarray:
    """Coverage (H, W) of a polyline in image coordinates (origin in the centre)."""
    scale = 4
    sheet = Image.new("L", (SIZE * scale, SIZE * scale))
    pen = ImageDraw.Draw(sheet)
    at = [((x + SIZE / 2) * scale, (y + SIZE / 2) * scale) for x, y in points]
    for start, end, width in zip(at, at[1:], widths, strict=False):
        pen.line([start, end], fill=255, width=max(1, round(width * scale)))
    return np.asarray(sheet.reduce(scale), np.float32) / 255
