"""From a drawn scene to a photograph: lighting, white balance, lens and sensor noise."""

import numpy as np

from anomalib_rd.data.demo_images.canvas import SIZE, Frame

NOISE = 0.004
"""Spread of the sensor noise, in fractions of full scale."""


def expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photograph an image (H, W, 3) in [0, 1]: uint8 of the same shape.

    Works on each pixel alone, so that two images that agree at a pixel still do.
    """
    frame = Frame.image()
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.10)
    along = (np.cos(angle) * frame.u + np.sin(angle) * frame.v) / (SIZE / 2)
    vignette = rng.uniform(0.02, 0.08) * (frame.u**2 + frame.v**2) / (SIZE / 2) ** 2
    light = rng.uniform(0.93, 1.07) * (1 + slope * along - vignette)
    balance = 1 + rng.uniform(-0.02, 0.02, 3)
    photo = image * light[..., None].astype(np.float32) * balance.astype(np.float32)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(NOISE)
    # Seven bits: the eighth would be noise alone, and a quarter of the file.
    return np.clip(np.rint((photo + noise) * 127), 0, 127).astype(np.uint8) * 2
