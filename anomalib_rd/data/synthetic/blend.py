"""A region that is darker, lighter, of another colour, or blurred: a stain, a worn place."""

import numpy as np
from scipy import ndimage

from anomalib_rd.data.synthetic.perlin import blob
from anomalib_rd.data.synthetic.place import log_uniform, rounded, somewhere


def perlin_blend(image: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, colour or sharpness in a Perlin-shaped region with a soft edge.

    0.5 % to 10 % of the image before the edge is softened. Brightness moves by 25 to 90 grey
    levels, mostly towards the side with room.

    Args:
        image: uint8 (H, W, 3).
        where: bool (H, W), where the region's middle may be.
        rng: draws all of it.
    """
    size = image.shape[:2]
    pixels = round(log_uniform(rng, 0.005, 0.1) * where.size)
    region = blob(size, somewhere(where, rng), pixels, rng)
    soft = rng.uniform(0.03, 0.12) * np.sqrt(pixels)
    cover = ndimage.gaussian_filter(region.astype(np.float64), soft)[..., None]
    changed = image.astype(np.float64)
    if rng.random() < 0.4:
        blur = rng.uniform(0.01, 0.03) * min(size)
        changed = ndimage.gaussian_filter(changed, (blur, blur, 0))
    bright = image[region].mean() + rng.uniform(-60, 60)
    step = rng.uniform(25, 90) * (1 if bright < 128 else -1)
    # Grey moves all channels alike, a tint some more than others.
    changed = changed + step * rng.uniform(0.4, 1, 3) ** rng.integers(2)
    return rounded(image + cover * (changed - image))
