"""A piece of the image in a wrong place (the idea of CutPaste: Li et al., CVPR 2021)."""

import numpy as np
from scipy import ndimage

from anomalib_rd.data.synthetic.place import log_uniform, rounded, somewhere


def cut_paste(image: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paste a rectangle of the image, turned and with other colours, elsewhere on it.

    0.4 % to 6 % of the image, sides 1 : 1 to 1 : 4, any angle.

    Args:
        image: uint8 (H, W, 3).
        where: bool (H, W), where the middles of both places are.
        rng: draws all of it.
    """
    area = log_uniform(rng, 0.004, 0.06) * where.size
    ratio, angle = rng.uniform(1, 4), rng.uniform(0, 2 * np.pi)
    half_long, half_short = np.sqrt(area * ratio) / 2, np.sqrt(area / ratio) / 2
    source, target = somewhere(where, rng), somewhere(where, rng)
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    v, u = rows - target[0], columns - target[1]
    # Where in the patch a pixel of the target lies, the patch's sides being the axes.
    across = v * np.cos(angle) - u * np.sin(angle)
    along = v * np.sin(angle) + u * np.cos(angle)
    cover = np.clip(half_short - abs(across) + 0.5, 0, 1) * np.clip(
        half_long - abs(along) + 0.5, 0, 1
    )
    at = [across + source[0], along + source[1]]
    patch = np.stack(
        [
            ndimage.map_coordinates(
                image[..., channel].astype(np.float64), at, order=1, mode="mirror"
            )
            for channel in range(3)
        ],
        axis=2,
    )
    patch = patch * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25, 3)
    return rounded(image + cover[..., None] * (patch - image))
