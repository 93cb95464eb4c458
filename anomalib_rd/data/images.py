"""Image files to tensors: any mode to 8-bit RGB, masks to bool, resized as RD4AD does."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from anomalib_rd.data.source import list_images
from anomalib_rd.errors import UserError

# torch is imported where tensors are made: checking a dataset decodes without it.
if TYPE_CHECKING:
    import torch

READING = "rgb-bilinear-antialiased-1"
"""Names how this module reads; another one whenever it gives other values for the same file."""

# What the endings of `list_images` say. Pillow would open any file by its content, PostScript by
# starting an interpreter.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# The value that means white in modes deeper than 8 bit. It is fixed by the mode, not by the image:
# stretching each image to its own range would change how images compare.
_FULL_SCALE = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535, "F": 1}
# A mask with all values below this holds labels, not grey levels.
_LABELS = 16


def read_pair(
    path: Path, mask: Path | None, size: tuple[int, int]
) -> "tuple[torch.Tensor, torch.Tensor | None]":
    """Decode an image and its mask, if it has one: see `read_image` and `read_mask`.

    Raises:
        UserError: a file is missing or unreadable, or the mask is of another size than the image.
    """
    stored = load_image(path)
    image = image_tensor(stored, size)
    if mask is None:
        return image, None
    return image, read_mask(mask, size, (stored.height, stored.width), path)


def read_image(path: Path, size: tuple[int, int]) -> "torch.Tensor":
    """Decode an image and resize it to ``size`` (H, W): uint8 RGB tensor (3, H, W).

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    return image_tensor(load_image(path), size)


def load_image(path: Path) -> Image.Image:
    """Decode an image of any mode to RGB at its own size, turned upright as its EXIF data say.

    Deep greys (16 bit, or float in 0..1) are scaled to 8 bit; an alpha channel is dropped.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    return rgb_image(_open(path), path)


def rgb_image(image: Image.Image, name: Path | str) -> Image.Image:
    """An upright image of any mode as RGB, as `load_image` does; ``name`` is said in errors.

    Raises:
        UserError: values outside of the range of a deep mode.
    """
    return _without_alpha(_eight_bit(image, name)).convert("RGB")


def image_tensor(image: Image.Image, size: tuple[int, int]) -> "torch.Tensor":
    """Resize an RGB image to ``size`` (H, W), bilinear and antialiased: uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(image_array(image, size)).permute(2, 0, 1).contiguous()


def image_array(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """As `image_tensor`, without torch and with the channels last: uint8 (H, W, 3)."""
    return np.array(_resize(image, size))


def read_mask(
    path: Path,
    size: tuple[int, int],
    image_size: tuple[int, int] | None = None,
    image_path: Path | None = None,
) -> "torch.Tensor":
    """Decode a mask and resize it as its image: bool tensor (H, W), true on the defect.

    Values above half are defect, after resizing (RD4AD's rule).

    Args:
        path: the mask's file, or the folder of the image's masks, as of `load_mask`.
        size: (H, W) to resize to.
        image_size: (H, W) of the image as stored; given, the mask's must equal it.
        image_path: the image, named in the error when the sizes differ.

    Raises:
        UserError: as `load_mask`.
    """
    import torch

    grey = _resize(load_mask(path, image_size, image_path), size)
    return torch.from_numpy(np.array(grey) >= 128)


def load_mask(
    path: Path, image_size: tuple[int, int] | None = None, image_path: Path | None = None
) -> Image.Image:
    """Decode a mask at its own size: grey, 0 for normal, 255 for defect, others in between.

    Of colours the brightest channel counts. In a mask of small numbers only, such as 0 and 1, all
    but 0 are defect. A folder holds several masks of one image, whose values may name the defect:
    all but 0 in any of them is defect.

    Args:
        path: the mask's file, or a folder of masks.
        image_size: (H, W) of the image as stored; given, the mask's must equal it.
        image_path: the image, named in the error when the sizes differ.

    Raises:
        UserError: the file is missing or unreadable, its size is not the image's, or no masks are
            in the folder.
    """
    if path.is_dir():
        return _union(path, image_size, image_path)
    mask = _open(path)
    if image_size is not None and (mask.height, mask.width) != tuple(image_size):
        raise UserError(
            f"mask {path} is {mask.width}x{mask.height} pixels, but its image"
            f"{f' {image_path}' if image_path else ''} is {image_size[1]}x{image_size[0]};"
            " store both at one size"
        )
    return _mask_levels(mask, path)


def _union(
    folder: Path, image_size: tuple[int, int] | None, image_path: Path | None
) -> Image.Image:
    files = list_images(folder)
    if not files:
        raise UserError(f"no masks in {folder}; put the image's masks there, or delete the folder")
    masks = [load_mask(file, image_size, image_path) for file in files]
    if len({mask.size for mask in masks}) > 1:
        raise UserError(f"the masks in {folder} are of several sizes; store them at one")
    defect = np.logical_or.reduce([np.asarray(mask) > 0 for mask in masks])
    return Image.fromarray(defect.astype(np.uint8) * 255)


def _open(path: Path) -> Image.Image:
    """A decoded image, upright."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; was the dataset moved or changed?") from None
    # Pillow's decoders raise nearly anything on a broken file: OSError, SyntaxError, ValueError,
    # EOFError, zlib.error, struct.error, DecompressionBombError.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} is not a readable image (truncated file?): {reason}; replace or delete it"
        ) from error


def _eight_bit(image: Image.Image, path: Path | str) -> Image.Image:
    """Deep grey modes to L; others as they are."""
    white = _FULL_SCALE.get(image.mode)
    if white is None:
        return image
    values = np.asarray(image, dtype=np.float64)
    if not (values.min() >= 0 and values.max() <= white):  # also true of NaN
        raise UserError(
            f"{path} has values from {values.min():g} to {values.max():g}, where an image of mode"
            f" {image.mode} should have 0 to {white}; save it as 8 or 16 bit"
        )
    return Image.fromarray(np.round(values * (255 / white)).astype(np.uint8))


def _without_alpha(image: Image.Image) -> Image.Image:
    """Colours alone: through RGBA, which keeps those of transparent palette entries."""
    return image.convert("RGBA").convert("RGB") if image.has_transparency_data else image


def _mask_levels(mask: Image.Image, path: Path) -> Image.Image:
    """Mask to L with black 0 and white 255."""
    deep = mask.mode in _FULL_SCALE
    if deep or mask.mode == "L":
        values = np.asarray(mask)
    else:  # the brightest channel: a pure red defect is dark as a grey
        values = np.asarray(_without_alpha(mask).convert("RGB")).max(axis=2)
    if mask.mode != "F" and values.max() < _LABELS:
        return Image.fromarray((values > 0).astype(np.uint8) * 255)
    return _eight_bit(mask, path) if deep else Image.fromarray(values)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)
