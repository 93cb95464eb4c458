"""Foreign texture in an irregular region (the idea of DRAEM: Zavrtanik et al., ICCV 2021)."""

import numpy as np
from scipy import ndimage

from anomalib_rd.data.demo_images.textures import photograph
from anomalib_rd.data.synthetic.perlin import Size, blob
from anomalib_rd.data.synthetic.place import log_uniform, rounded, somewhere

PHOTOGRAPHS = ("brick", "grass", "gravel")  # they come with scikit-image


def texture_paste(image: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill a Perlin-shaped region with a tinted photograph, or with the image itself turned over.

    Opacity 0.3 to 0.9; 0.4 % to 8 % of the image.

    Args:
        image: uint8 (H, W, 3).
        where: bool (H, W), where the region's middle may be.
        rng: draws all of it.
    """
    size = image.shape[:2]
    pixels = round(log_uniform(rng, 0.004, 0.08) * where.size)
    region = blob(size, somewhere(where, rng), pixels, rng)
    own = rng.random() < 0.3
    texture = _displaced(image, rng) if own else _tinted(size, rng)
    cover = rng.uniform(0.3, 0.9) * ndimage.gaussian_filter(region.astype(np.float64), 0.7)
    return rounded(image + cover[..., None] * (texture - image))


def _tinted(size: Size, rng: np.random.Generator) -> np.ndarray:
    """A part of a photograph, turned and magnified, between two colours: (H, W, 3)."""
    photo = photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2) * 256 / min(size)
    rows, columns = np.ogrid[: size[0], : size[1]]
    v = zoom * (rows * np.cos(angle) - columns * np.sin(angle)) + rng.uniform(0, photo.shape[0])
    u = zoom * (rows * np.sin(angle) + columns * np.cos(angle)) + rng.uniform(0, photo.shape[1])
    grey = ndimage.map_coordinates(photo, [v, u], order=1, mode="mirror")[..., None]
    dark = rng.uniform(0, 120, 3)
    return dark + grey * (rng.uniform(130, 255, 3) - dark)


def _displaced(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image rolled by a good part of its size and turned upside down."""
    far = [round(rng.uniform(0.2, 0.8) * length) for length in image.shape[:2]]
    return np.roll(image, far, axis=(0, 1))[::-1].astype(np.float64)
