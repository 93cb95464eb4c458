"""Image files to tensors: any mode to 8-bit RGB, masks to bool, resized as RD4AD does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps

from anomalib_rd.data.mask_rules import AUTO, mask_levels
from anomalib_rd.data.sources.files import list_images
from anomalib_rd.errors import UserError

# torch is imported where tensors are made: checking a data set decodes without it.
if TYPE_CHECKING:
    import torch

READING = "rgb-bilinear-antialiased-2"
"""Version of this module in cache keys; changes whenever a file is read to different values."""

# The formats of `files.IMAGE_EXTENSIONS`. Pillow would open any file by its content, PostScript by
# starting an interpreter.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
# The value of white in modes deeper than 8 bit. It depends on the mode, not on the image:
# stretching each image to its own range would change how images compare.
_WHITE = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535, "F": 1}


def read_pair(
    path: Path, mask: Path | None, size: tuple[int, int], rule: str = AUTO
) -> "tuple[torch.Tensor, torch.Tensor | None]":
    """Decode an image and its mask, if any: see `read_image` and `read_mask`.

    Raises:
        UserError: a file is missing or unreadable, or image and mask differ in size.
    """
    stored = load_image(path)
    image = _to_tensor(stored, size)
    if mask is None:
        return image, None
    return image, read_mask(mask, size, (stored.height, stored.width), path, rule)


def read_image(path: Path, size: tuple[int, int]) -> "torch.Tensor":
    """Decode an image and resize it to ``size`` (H, W): uint8 RGB tensor (3, H, W).

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    return _to_tensor(load_image(path), size)


def load_image(path: Path) -> Image.Image:
    """Decode an image of any mode to RGB at its own size, upright according to its EXIF data.

    Deep greys (16 bit, or float in 0..1) are scaled to 8 bit; an alpha channel is dropped.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    return convert_to_rgb(_open(path), str(path))


def convert_to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert an upright image of any mode like `load_image`; ``name`` appears in errors.

    Raises:
        UserError: values out of the range of a deep mode.
    """
    if white := _WHITE.get(image.mode):
        levels = scale_to_8_bit(np.asarray(image), white, f"{name} (mode {image.mode})")
        image = Image.fromarray(levels)
    if image.has_transparency_data:
        # RGBA keeps the colours of transparent palette entries.
        image = image.convert("RGBA")
    return image.convert("RGB")


def scale_to_8_bit(values: np.ndarray, white: float, name: str) -> np.ndarray:
    """Grey or colour values from 0 to ``white`` as uint8 levels; ``name`` appears in errors.

    Raises:
        UserError: no values, or values out of range.
    """
    if not values.size:
        raise UserError(f"{name} has no pixels")
    values = values.astype(np.float64)
    if not (values.min() >= 0 and values.max() <= white):  # also true of NaN
        raise UserError(
            f"{name} has values from {values.min():g} to {values.max():g}, expected 0 to {white};"
            " scale it, or save it as 8 or 16 bit"
        )
    return np.round(values * (255 / white)).astype(np.uint8)


def resize_to_array(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize an RGB image to ``size`` (H, W), bilinear and antialiased: uint8 (H, W, 3)."""
    return np.array(_resize(image, size))


def read_mask(
    path: Path,
    size: tuple[int, int],
    image_size: tuple[int, int] | None = None,
    image_path: Path | None = None,
    rule: str = AUTO,
) -> "torch.Tensor":
    """Decode a mask and resize it like its image: bool tensor (H, W), true on the defect.

    Values above half are defect, after resizing (RD4AD's rule).

    Args:
        path: the mask's file, or the folder of the image's masks.
        size: (H, W) to resize to.
        image_size: (H, W) of the upright image, which the mask must have; None: not checked.
        image_path: the image, for its EXIF data and for errors.
        rule: one of `masks.MASK_RULES`.

    Raises:
        UserError: see `load_mask`.
    """
    import torch

    grey = _resize(load_mask(path, image_size, image_path, rule), size)
    return torch.from_numpy(np.array(grey) >= 128)


def load_mask(
    path: Path,
    image_size: tuple[int, int] | None = None,
    image_path: Path | None = None,
    rule: str = AUTO,
) -> Image.Image:
    """Decode a mask at its own size: grey, 0 for normal, 255 for defect, edges in between.

    The masks in a folder, whose values may be defect types, are united: all but 0 is defect.
    Arguments as in `read_mask`.

    Raises:
        UserError: the file is missing or unreadable, its size differs from the image's, or the
            folder has no masks.
    """
    if not path.is_dir():
        return Image.fromarray(mask_levels(_open_mask(path, image_size, image_path), path, rule))
    files = list_images(path)
    if not files:
        raise UserError(f"no masks in {path}; put the image's masks there, or delete the folder")
    masks = [load_mask(file, image_size, image_path, rule) for file in files]
    if len({mask.size for mask in masks}) > 1:
        raise UserError(f"the masks in {path} have different sizes; save them in one size")
    defect = np.logical_or.reduce([np.asarray(mask) > 0 for mask in masks])
    return Image.fromarray(defect.astype(np.uint8) * 255)


def _open_mask(
    path: Path, image_size: tuple[int, int] | None, image_path: Path | None
) -> Image.Image:
    """Decode a mask, rotated by its own EXIF data, by the image's, or not at all.

    The first of these that has the image's size is returned.
    """
    mask = _open(path)
    if image_size is None or (mask.height, mask.width) == tuple(image_size):
        return mask
    stored = _open(path, upright=False)
    rotated = stored.copy()
    if image_path and image_path.is_file():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation(image_path)
        rotated.info["exif"] = exif.tobytes()
        rotated = ImageOps.exif_transpose(rotated)
    for candidate in (rotated, stored):
        if (candidate.height, candidate.width) == tuple(image_size):
            return candidate
    raise UserError(
        f"mask {path} is {mask.width}x{mask.height} pixels, but its image"
        f"{f' {image_path}' if image_path else ''} is {image_size[1]}x{image_size[0]};"
        " save both in one size"
    )


def orientation(path: Path) -> int:
    """EXIF orientation of an image, 1 to 8; 1: none.

    Raises:
        UserError: the file is missing or unreadable.
    """
    with _open_file(path) as image:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


@contextmanager
def _open_file(path: Path) -> Iterator[Image.Image]:
    """An opened image file; every error becomes a UserError."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; was the dataset moved or changed?") from None
    # Pillow's decoders raise nearly anything on a broken file: OSError, SyntaxError, ValueError,
    # EOFError, zlib.error, struct.error, DecompressionBombError.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} is not a readable image (truncated file?): {reason}; replace or delete it"
        ) from error


def _open(path: Path, upright: bool = True) -> Image.Image:
    with _open_file(path) as image:
        image.load()
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        return image


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _to_tensor(image: Image.Image, size: tuple[int, int]) -> "torch.Tensor":
    import torch

    return torch.from_numpy(resize_to_array(image, size)).permute(2, 0, 1).contiguous()
