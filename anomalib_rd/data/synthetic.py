"""Synthetic defects on normal images, for validation without the test set.

Each defect function takes an image uint8 (H, W, 3), the region ``where``, bool (H, W), in which
the defect is centred, and a random generator; it returns the changed image.
"""

import hashlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.filters import threshold_otsu

from anomalib_rd.data.demo_images.textures import photograph

Size = tuple[int, int]

MIN_SHARE, MAX_SHARE = 0.002, 0.1
"""Limits of the mask's share of the image. 80 % of the masks of MVTec AD's bottle, capsule, pill
and transistor are within them; their median is 1 %."""
MIN_CHANGE = 12
"""Grey levels by which the most changed channel must differ for a pixel to count as changed."""
MIN_MEAN_CHANGE = 20
"""Minimum mean change of a defect's pixels in grey levels, so that it is visible."""
MIN_ON_OBJECT = 0.6
"""Minimum share of the mask that is on the object."""
ATTEMPTS = 50
OVERSAMPLING = 4  # of strokes, for antialiasing
STROKE_SEGMENTS = 24
PHOTOGRAPHS = ("brick", "grass", "gravel")  # included in scikit-image


def random_generator(seed: int, name: str) -> np.random.Generator:
    """Independent random numbers for each ``name``, such as an image's relative path."""
    return np.random.default_rng(int.from_bytes(_digest(seed, name), "big"))


def hash_fraction(seed: int, name: str) -> float:
    """A number in [0, 1) for ``name``, to select or order by."""
    return int.from_bytes(_digest(seed, name)[:8], "big") / 2**64


def _digest(seed: int, name: str) -> bytes:
    # A path may contain bytes that are not UTF-8.
    return hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest()


def add_defect(
    image: np.ndarray, rng: np.random.Generator, kind: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Add one defect to an image, mostly on the object (see `foreground`).

    It is drawn again until it is visible, on the object, and covers between `MIN_SHARE` and
    `MAX_SHARE` of the image. After `ATTEMPTS` failures it is a plain dark or light disc.

    Args:
        image: uint8 (H, W, 3), both sides at least 64 pixels; not modified.
        rng: the only source of randomness.
        kind: one of `KINDS`; None draws one.

    Returns:
        The image with the defect, and its mask bool (H, W): solid regions, never empty. Outside
        the mask the image is unchanged.
    """
    draw_defect = KINDS[kind or str(rng.choice(list(KINDS)))]
    where = foreground(image)
    for _ in range(ATTEMPTS):
        changed = draw_defect(image, where, rng)
        mask = visible_change(image, changed)
        if (
            MIN_SHARE <= mask.mean() <= MAX_SHARE
            and difference(image, changed)[mask].mean() >= MIN_MEAN_CHANGE
            and where[mask].mean() >= MIN_ON_OBJECT
        ):
            return np.where(mask[..., None], changed, image), mask
    # A disc of 1 % of the image in the middle of the object, black on light, white on dark.
    height, width = where.shape
    inside = ndimage.distance_transform_edt(np.pad(where, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    rows, columns = np.ogrid[:height, :width]
    mask = np.hypot(rows - row, columns - column) <= np.sqrt(0.01 * height * width / np.pi)
    ink = np.where(image.astype(int).sum(axis=2, keepdims=True) < 382, 255, 0).astype(np.uint8)
    return np.where(mask[..., None], ink, image), mask


def visible_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where two images (H, W, 3) visibly differ: bool (H, W), without pinholes and specks."""
    speck = MIN_SHARE / 4 * before[..., 0].size
    moved = _without_specks(difference(before, after) >= MIN_CHANGE, speck)
    solid = ndimage.binary_closing(moved) | moved  # SciPy's closing loses the image's border
    return ~_without_specks(~solid, speck)


def _without_specks(mask: np.ndarray, pixels: float) -> np.ndarray:
    """A mask (H, W) without its 8-connected regions of fewer ``pixels``."""
    regions, _ = ndimage.label(mask, np.ones((3, 3)))
    large: np.ndarray = mask & (np.bincount(regions.ravel()) >= pixels)[regions]
    return large


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Difference of two images in the channel that differs most: grey levels (H, W)."""
    levels: np.ndarray = abs(after.astype(np.int16) - before).max(axis=2)
    return levels


def foreground(image: np.ndarray) -> np.ndarray:
    """The object in an image uint8 (H, W, 3): bool (H, W).

    The largest region that differs from the border's colour by more than Otsu's threshold, its
    holes filled, if it covers 4 % to 95 % of the image, is larger than all other such regions
    together, and hardly touches the border. Otherwise the image is a texture, or the object fills
    it: everything is foreground.
    """
    height, width = image.shape[:2]
    unit = max(1, round(min(height, width) / 64))
    smooth = ndimage.gaussian_filter(image.astype(np.float64), (unit, unit, 0))
    border = np.ones((height, width), bool)
    border[unit:-unit, unit:-unit] = False
    distance = np.linalg.norm(smooth - np.median(smooth[border], axis=0), axis=2)
    everything = np.ones((height, width), bool)
    if np.ptp(distance) < 1:
        return everything
    differs = ndimage.binary_opening(distance > threshold_otsu(distance), iterations=2 * unit)
    regions, _ = ndimage.label(differs)
    pixels = np.bincount(regions.ravel())
    pixels[0] = 0  # the background
    largest: np.ndarray = ndimage.binary_fill_holes(regions == pixels.argmax())
    clear = 2 * pixels.max() > pixels.sum() and largest[border].mean() < 0.1
    return largest if clear and 0.04 < largest.mean() < 0.95 else everything


def perlin_blend(image: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, colour or sharpness in a Perlin-shaped region with a soft edge.

    The region covers 0.5 % to 10 % of the image. Brightness changes by 25 to 90 grey levels,
    mostly towards the farther end of the range.
    """
    size = image.shape[:2]
    pixels = round(_log_uniform(rng, 0.005, 0.1) * where.size)
    region = blob(size, _random_pixel(where, rng), pixels, rng)
    soft = rng.uniform(0.03, 0.12) * np.sqrt(pixels)
    cover = ndimage.gaussian_filter(region.astype(np.float64), soft)[..., None]
    changed = image.astype(np.float64)
    if rng.random() < 0.4:
        blur = rng.uniform(0.01, 0.03) * min(size)
        changed = ndimage.gaussian_filter(changed, (blur, blur, 0))
    bright = image[region].mean() + rng.uniform(-60, 60)
    step = rng.uniform(25, 90) * (1 if bright < 128 else -1)
    # Either grey, which changes all channels equally, or a tint.
    changed = changed + step * rng.uniform(0.4, 1, 3) ** rng.integers(2)
    return _as_uint8(image + cover * (changed - image))


def cut_paste(image: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paste a rectangle of the image, rotated and recoloured, at another position.

    It covers 0.4 % to 6 % of the image, sides 1 : 1 to 1 : 4, any angle.
    """
    area = _log_uniform(rng, 0.004, 0.06) * where.size
    ratio, angle = rng.uniform(1, 4), rng.uniform(0, 2 * np.pi)
    half_long, half_short = np.sqrt(area * ratio) / 2, np.sqrt(area / ratio) / 2
    source, target = _random_pixel(where, rng), _random_pixel(where, rng)
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    v, u = rows - target[0], columns - target[1]
    # Coordinates in the patch, whose sides are the axes.
    across = v * np.cos(angle) - u * np.sin(angle)
    along = v * np.sin(angle) + u * np.cos(angle)
    cover = np.clip(half_short - abs(across) + 0.5, 0, 1) * np.clip(
        half_long - abs(along) + 0.5, 0, 1
    )
    at = [across + source[0], along + source[1]]
    channels = [image[..., i].astype(np.float64) for i in range(3)]
    patch = np.stack(
        [ndimage.map_coordinates(channel, at, order=1, mode="mirror") for channel in channels],
        axis=2,
    )
    patch = patch * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25, 3)
    return _as_uint8(image + cover[..., None] * (patch - image))


def scratch(image: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one to three curved strokes from a point of the object.

    Each is 15 % to 50 % of the shorter side long and 0.6 % to 1.6 % (at least 1.2 pixels) wide.
    """
    cover = np.zeros(image.shape[:2])
    start = _random_pixel(where, rng)
    heading = rng.uniform(0, 2 * np.pi)
    # Towards the middle of the object, so that more of the scratch is on it.
    middle = np.argwhere(where).mean(axis=0) - start
    if np.hypot(*middle) > 1:
        heading = np.arctan2(middle[0], middle[1]) + rng.normal(0, 0.7)
    for _ in range(rng.integers(1, 4)):
        stroke = _stroke(image.shape[:2], start, heading + rng.normal(0, 0.25), rng)
        cover = np.maximum(cover, stroke)
    near = image[cover > 0.5].mean() if (cover > 0.5).any() else image.mean()
    light = near + rng.uniform(-40, 40) < 110
    ink = rng.uniform(190, 255, 3) if light else rng.uniform(0, 65, 3)
    return _as_uint8(image + rng.uniform(0.35, 1) * cover[..., None] * (ink - image))


def texture_paste(image: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill a Perlin-shaped region with a tinted photograph, or with the flipped image itself.

    It covers 0.4 % to 8 % of the image with an opacity of 0.3 to 0.9.
    """
    size = image.shape[:2]
    pixels = round(_log_uniform(rng, 0.004, 0.08) * where.size)
    region = blob(size, _random_pixel(where, rng), pixels, rng)
    if rng.random() < 0.3:
        shift = [round(rng.uniform(0.2, 0.8) * length) for length in size]
        texture = np.roll(image, shift, axis=(0, 1))[::-1].astype(np.float64)
    else:
        texture = _tinted_photograph(size, rng)
    cover = rng.uniform(0.3, 0.9) * ndimage.gaussian_filter(region.astype(np.float64), 0.7)
    return _as_uint8(image + cover[..., None] * (texture - image))


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "texture_paste": texture_paste,
    "cut_paste": cut_paste,
    "perlin_blend": perlin_blend,
    "scratch": scratch,
}


def _random_pixel(where: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """A uniformly drawn pixel (row, column) of the region ``where`` (H, W)."""
    inside = np.flatnonzero(where)
    row, column = np.unravel_index(inside[rng.integers(len(inside))], where.shape)
    return int(row), int(column)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number with uniform logarithm, so that small defects are as common as large ones."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _as_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def perlin(size: Size, cell: float, rng: np.random.Generator) -> np.ndarray:
    """Gradient noise (H, W) (Perlin, 2002, with its fifth-degree fade), roughly in [-1, 1].

    ``cell`` is the distance of the gradients in pixels, and so the size of the noise's features.
    """
    y, x = (np.arange(length) / cell for length in size)
    rows, columns = (int(np.ceil(length / cell)) + 2 for length in size)
    angle = rng.uniform(0, 2 * np.pi, (rows, columns))
    across, along = np.cos(angle), np.sin(angle)
    top, left = y.astype(int)[:, None], x.astype(int)[None]
    v, u = (y % 1)[:, None], (x % 1)[None]

    def corner(down: int, right: int) -> np.ndarray:
        at = top + down, left + right
        slope: np.ndarray = across[at] * (u - right) + along[at] * (v - down)
        return slope

    def fade(t: np.ndarray) -> np.ndarray:
        return t**3 * (t * (t * 6 - 15) + 10)

    upper = corner(0, 0) + fade(u) * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + fade(u) * (corner(1, 1) - corner(1, 0))
    return np.sqrt(2) * (upper + fade(v) * (lower - upper))


def blob(size: Size, at: tuple[float, float], pixels: int, rng: np.random.Generator) -> np.ndarray:
    """An irregular region (H, W) bool of ``pixels`` pixels around ``at`` (row, column).

    The highest values of Perlin noise on two scales, minus the distance to ``at``, so that the
    region is compact.
    """
    radius = np.sqrt(pixels / np.pi)
    rows, columns = np.ogrid[: size[0], : size[1]]
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.7)
    v, u = rows - at[0], columns - at[1]
    along = (u * np.cos(angle) + v * np.sin(angle)) / stretch
    across = (v * np.cos(angle) - u * np.sin(angle)) * stretch
    height = -np.hypot(along, across) / radius
    for share, strength in ((1.2, 0.7), (0.4, 0.35)):
        height = height + strength * perlin(size, max(2.0, share * radius), rng)
    pixels = int(np.clip(pixels, 1, height.size))
    least = np.partition(height, -pixels, axis=None)[-pixels]
    region: np.ndarray = height >= least
    return region


def _stroke(
    size: Size, start: tuple[int, int], heading: float, rng: np.random.Generator
) -> np.ndarray:
    """The coverage (H, W) in [0, 1] of one stroke that fades at its end."""
    length = rng.uniform(0.15, 0.5) * min(size)
    width = max(1.2, rng.uniform(0.006, 0.016) * min(size))
    turns = np.cumsum(rng.normal(0, 0.12, STROKE_SEGMENTS))
    angles = heading + turns + np.linspace(0, rng.normal(0, 0.5), STROKE_SEGMENTS)
    step = length / STROKE_SEGMENTS
    jitter = rng.normal(0, 0.02 * length, 2)
    columns = start[1] + jitter[1] + np.cumsum(step * np.cos(angles))
    rows = start[0] + jitter[0] + np.cumsum(step * np.sin(angles))
    canvas = Image.new("L", (size[1] * OVERSAMPLING, size[0] * OVERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    points = [
        (float(x * OVERSAMPLING), float(y * OVERSAMPLING))
        for x, y in zip(columns, rows, strict=True)
    ]
    for i, ends in enumerate(pairwise(points)):
        strength = 1 - max(0.0, (i - 0.7 * STROKE_SEGMENTS) / (0.5 * STROKE_SEGMENTS))
        pen.line(ends, fill=round(255 * strength), width=max(1, round(width * OVERSAMPLING)))
    return np.asarray(canvas.reduce(OVERSAMPLING)) / 255


def _tinted_photograph(size: Size, rng: np.random.Generator) -> np.ndarray:
    """A part of a photograph, rotated and magnified, between two colours: (H, W, 3)."""
    photo = photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2) * 256 / min(size)
    rows, columns = np.ogrid[: size[0], : size[1]]
    v = zoom * (rows * np.cos(angle) - columns * np.sin(angle)) + rng.uniform(0, photo.shape[0])
    u = zoom * (rows * np.sin(angle) + columns * np.cos(angle)) + rng.uniform(0, photo.shape[1])
    grey = ndimage.map_coordinates(photo, [v, u], order=1, mode="mirror")[..., None]
    dark = rng.uniform(0, 120, 3)
    return dark + grey * (rng.uniform(130, 255, 3) - dark)
