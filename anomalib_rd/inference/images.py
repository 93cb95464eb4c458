"""Whatever holds an image, to RGB at its own size."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from anomalib_rd.data.images import load_image, rgb_image
from anomalib_rd.errors import UserError

_WHITE = {"u1": 255, "u2": 65535, "f": 1, "b": 1}


def as_rgb(image: Any) -> Image.Image:
    """Decode or convert an image as the training images were read.

    Args:
        image: a path; a PIL image of any mode, turned upright as its EXIF data say; an array
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a torch tensor (H, W) or with the channels
            first. Values of arrays and tensors: uint8, uint16, bool, or float in [0, 1], rounded
            to 8 bit. An alpha channel is dropped.

    Raises:
        UserError: unreadable, of another shape or type, or values out of range.
    """
    if isinstance(image, str | Path):
        return load_image(Path(image))
    if isinstance(image, Image.Image):
        return rgb_image(ImageOps.exif_transpose(image), "the image")
    if hasattr(image, "detach"):  # a tensor, without importing torch to ask
        array = image.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise UserError(
            f"an image of type {type(image).__name__}: give a path, a PIL image, an array or a "
            "tensor"
        )
    return Image.fromarray(_three_channels(_eight_bit(array), getattr(image, "shape", ())))


def _eight_bit(array: np.ndarray) -> np.ndarray:
    kind = array.dtype.kind
    white = _WHITE.get(kind if kind in "fb" else f"{kind}{array.dtype.itemsize}")
    if white is None:
        raise UserError(
            f"an image of {array.dtype} values: give uint8, uint16, bool, or float in [0, 1]"
        )
    if white == 255:
        return array
    values = array.astype(np.float64)
    if not (values.size and values.min() >= 0 and values.max() <= white):  # also true of NaN
        raise UserError(
            f"an image of {array.dtype} with values from {values.min():g} to {values.max():g}: "
            f"they must be in [0, {white}]"
            if values.size
            else "an image without pixels"
        )
    return np.round(values * (255 / white)).astype(np.uint8)


def _three_channels(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UserError(
            f"an image of shape {tuple(shape)}: give an array (H, W[, 1, 3 or 4]) or a tensor "
            "([1, 3 or 4,] H, W); several images go to `many`"
        )
    array = array[..., :3]
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
