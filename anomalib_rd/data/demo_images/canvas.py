"""Antialiased painting on float images.

Shapes are signed distance fields (negative inside, in pixels) over the coordinates of a
`Frame`; `cover` turns a distance into an antialiased coverage. Colours and images are RGB
in [0, 1]; an image is (SIZE, SIZE, 3) float32, a plane (SIZE, SIZE) float32.
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


@dataclass(frozen=True)
class Frame:
    """Coordinates (u to the right, v down, in pixels) of a part placed in the image."""

    u: np.ndarray
    v: np.ndarray

    @classmethod
    def image(cls) -> "Frame":
        """The frame of the image itself, its origin in the centre."""
        axis = np.arange(SIZE, dtype=np.float32) + 0.5 - SIZE / 2
        return cls(*np.meshgrid(axis, axis))

    def placed(self, x: float, y: float, degrees: float = 0.0, zoom: float = 1.0) -> "Frame":
        """The frame of a part at (x, y) of this one, turned and magnified."""
        c, s = np.cos(np.radians(degrees)) / zoom, np.sin(np.radians(degrees)) / zoom
        u, v = self.u - np.float32(x), self.v - np.float32(y)
        return Frame(np.float32(c) * u + np.float32(s) * v, np.float32(c) * v - np.float32(s) * u)

    def disc(self, radius: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
        """Signed distance to a disc: (H, W)."""
        return np.hypot(self.u - np.float32(x), self.v - np.float32(y)) - np.float32(radius)

    def box(
        self, width: float, height: float, corner: float = 0.0, x: float = 0.0, y: float = 0.0
    ) -> np.ndarray:
        """Signed distance to a rectangle with rounded corners: (H, W)."""
        p = np.abs(self.u - np.float32(x)) - np.float32(width / 2 - corner)
        q = np.abs(self.v - np.float32(y)) - np.float32(height / 2 - corner)
        outside = np.hypot(np.maximum(p, 0), np.maximum(q, 0))
        return outside + np.minimum(np.maximum(p, q), 0) - np.float32(corner)

    def decal(self, picture: np.ndarray) -> np.ndarray:
        """A picture (h, w) at `DECAL_SCALE`, centred on the origin, as coverage: (H, W)."""
        rows = self.v * DECAL_SCALE + (picture.shape[0] - 1) / 2
        columns = self.u * DECAL_SCALE + (picture.shape[1] - 1) / 2
        return ndimage.map_coordinates(picture, [rows, columns], order=1)


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """A colour (3,)."""
    return np.array((red, green, blue), np.float32)


def cover(distance: np.ndarray, soft: float = 1.0) -> np.ndarray:
    """Coverage in [0, 1] of a shape, its edge ``soft`` pixels wide."""
    return np.clip(0.5 - distance / np.float32(soft), 0, 1)


def paint(image: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay a colour (3,) or an image over ``image`` where ``alpha`` (H, W) says."""
    return image + alpha[..., None] * (colour.astype(np.float32) - image)


def shaded(image: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """Make ``image`` brighter or darker by the fraction ``shade`` (H, W)."""
    return image * (1 + shade[..., None])


def fog(rng: np.random.Generator, cell: float) -> np.ndarray:
    """Smooth noise with features of about ``cell`` pixels, of mean 0 and spread 1: (H, W)."""
    if cell <= 1:
        return rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    across = SIZE / cell
    n = int(np.ceil(across)) + 4
    coarse = Image.fromarray(rng.standard_normal((n, n), dtype=np.float32))
    # The grid lies elsewhere each time, or its cells would show over many images.
    x, y = rng.uniform(0, 3, 2)
    box = (x, y, x + across, y + across)
    fine = coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(fine) * np.float32(1.3)


def relief(height: np.ndarray, degrees: float) -> np.ndarray:
    """Shade (H, W) of a surface of that height, lit from ``degrees`` (0 right, 90 below)."""
    dy, dx = np.gradient(height)
    light = np.radians(degrees)
    return -np.float32(np.cos(light)) * dx - np.float32(np.sin(light)) * dy


def lines(
    rng: np.random.Generator, samples: int, smooth: float, positions: np.ndarray
) -> np.ndarray:
    """One-dimensional noise of spread 1 read at ``positions`` (pixels, any shape)."""
    profile = ndimage.gaussian_filter1d(rng.standard_normal(samples), smooth, mode="wrap")
    profile /= profile.std()
    return np.interp(positions, np.arange(samples), profile, period=samples).astype(np.float32)


@lru_cache(maxsize=256)
def text(words: str, height: float) -> np.ndarray:
    """A line of text, ``height`` pixels high, as a decal (h, w)."""
    # Drawn at twice a decal's scale and halved: antialiased on every platform alike.
    font = ImageFont.load_default(height * DECAL_SCALE * 2)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(words))
    sheet = Image.new("L", (right - left + 16, bottom - top + 16))
    ImageDraw.Draw(sheet).text((8 - left, 8 - top), words, fill=255, font=font)
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
