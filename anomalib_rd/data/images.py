"""Image files to tensors: any mode to 8-bit RGB, masks to bool, resized as RD4AD does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps

from anomalib_rd.data.masks import AUTO, mask_levels
from anomalib_rd.data.sources.files import list_images
from anomalib_rd.errors import UserError

# torch is imported where tensors are made: checking a dataset decodes without it.
if TYPE_CHECKING:
    import torch

READING = "rgb-bilinear-antialiased-2"
"""Names how this module reads; another one whenever it gives other values for the same file."""

# The formats of `walk.IMAGE_EXTENSIONS`. Pillow would open any file by its content, PostScript by
# starting an interpreter.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
# The value that means white in modes deeper than 8 bit. It is fixed by the mode, not by the image:
# stretching each image to its own range would change how images compare.
_FULL_SCALE = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535, "F": 1}


def read_pair(
    path: Path, mask: Path | None, size: tuple[int, int], rule: str = AUTO
) -> "tuple[torch.Tensor, torch.Tensor | None]":
    """Decode an image and its mask, if it has one: see `read_image` and `read_mask`.

    Raises:
        UserError: a file is missing or unreadable, or the mask is of another size than the image.
    """
    stored = load_image(path)
    image = image_tensor(stored, size)
    if mask is None:
        return image, None
    return image, read_mask(mask, size, (stored.height, stored.width), path, rule)


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
    return convert_to_rgb(_open(path), path)


def convert_to_rgb(image: Image.Image, name: Path | str) -> Image.Image:
    """An upright image of any mode as RGB, as `load_image` does; ``name`` is said in errors.

    Raises:
        UserError: values outside of the range of a deep mode.
    """
    return _without_alpha(_eight_bit(image, name)).convert("RGB")


def image_tensor(image: Image.Image, size: tuple[int, int]) -> "torch.Tensor":
    """Resize an RGB image to ``size`` (H, W), bilinear and antialiased: uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(resize_to_array(image, size)).permute(2, 0, 1).contiguous()


def resize_to_array(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """As `image_tensor`, without torch and with the channels last: uint8 (H, W, 3)."""
    return np.array(_resize(image, size))


def read_mask(
    path: Path,
    size: tuple[int, int],
    image_size: tuple[int, int] | None = None,
    image_path: Path | None = None,
    rule: str = AUTO,
) -> "torch.Tensor":
    """Decode a mask and resize it as its image: bool tensor (H, W), true on the defect.

    Values above half are defect, after resizing (RD4AD's rule).

    Args:
        path: the mask's file, or the folder of the image's masks, as of `load_mask`.
        size: (H, W) to resize to.
        image_size: (H, W) of the upright image; given, the mask must fit it.
        image_path: the image, named in the error when the sizes differ.
        rule: one of `mask_levels.MASK_RULES`.

    Raises:
        UserError: as `load_mask`.
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
    """Decode a mask at its own size: grey, 0 for normal, 255 for defect, others in between.

    Which values are defect says `anomalib_rd.data.masks`. A folder holds several masks of one
    image, whose values may name the defect: all but 0 in any of them is defect.

    A mask is turned upright as its image: by its own EXIF data, by the image's where it has none,
    or not at all, whichever fits the image.

    Args:
        path: the mask's file, or a folder of masks.
        image_size: (H, W) of the upright image; given, the mask must fit it.
        image_path: the image, for its EXIF data and the error when the sizes differ.
        rule: one of `mask_levels.MASK_RULES`.

    Raises:
        UserError: the file is missing or unreadable, its size is not the image's, or no masks are
            in the folder.
    """
    if path.is_dir():
        return _union(path, image_size, image_path, rule)
    mask = _fitting(path, image_size, image_path)
    return Image.fromarray(mask_levels(mask, path, rule))


def _fitting(
    path: Path, image_size: tuple[int, int] | None, image_path: Path | None
) -> Image.Image:
    """A decoded mask, turned so that it has the image's size."""
    mask = _open(path)
    if image_size is None or (mask.height, mask.width) == tuple(image_size):
        return mask
    stored = _open(path, upright=False)
    turn = orientation(image_path) if image_path and image_path.is_file() else 1
    for turned in (_turned(stored, turn), stored):
        if (turned.height, turned.width) == tuple(image_size):
            return turned
    raise UserError(
        f"mask {path} is {mask.width}x{mask.height} pixels, but its image"
        f"{f' {image_path}' if image_path else ''} is {image_size[1]}x{image_size[0]};"
        " store both at one size"
    )


def orientation(path: Path) -> int:
    """How an image is to be turned by its EXIF data, 1 to 8; 1: not at all.

    Raises:
        UserError: the file is missing or unreadable.
    """
    with _opened(path) as image:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def _turned(image: Image.Image, turn: int) -> Image.Image:
    """An image turned by an EXIF orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    turned = image.copy()
    turned.info["exif"] = exif.tobytes()
    return ImageOps.exif_transpose(turned)


def _union(
    folder: Path, image_size: tuple[int, int] | None, image_path: Path | None, rule: str
) -> Image.Image:
    files = list_images(folder)
    if not files:
        raise UserError(f"no masks in {folder}; put the image's masks there, or delete the folder")
    masks = [load_mask(file, image_size, image_path, rule) for file in files]
    if len({mask.size for mask in masks}) > 1:
        raise UserError(f"the masks in {folder} are of several sizes; store them at one")
    defect = np.logical_or.reduce([np.asarray(mask) > 0 for mask in masks])
    return Image.fromarray(defect.astype(np.uint8) * 255)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, opened; whatever is wrong with it becomes one line."""
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
    """A decoded image, upright or as it is stored."""
    with _opened(path) as image:
        image.load()
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        return image


def _eight_bit(image: Image.Image, path: Path | str) -> Image.Image:
    """Deep grey modes to L; others unchanged."""
    white = _FULL_SCALE.get(image.mode)
    if white is None:
        return image
    return Image.fromarray(scale_to_8_bit(np.asarray(image), white, f"{path} (mode {image.mode})"))


def scale_to_8_bit(values: np.ndarray, white: float, name: str) -> np.ndarray:
    """Grey or colour values from 0 to ``white`` as uint8 levels; ``name`` is for errors.

    Raises:
        UserError: no values, or values out of range.
    """
    if not values.size:
        raise UserError(f"{name} has no pixels")
    values = values.astype(np.float64)
    if not (values.min() >= 0 and values.max() <= white):  # also true of NaN
        raise UserError(
            f"{name} has values from {values.min():g} to {values.max():g}, expected 0 to {white};"
            " save it as 8 or 16 bit"
        )
    return np.round(values * (255 / white)).astype(np.uint8)


def _without_alpha(image: Image.Image) -> Image.Image:
    """Colours alone: through RGBA, which keeps those of transparent palette entries."""
    return image.convert("RGBA").convert("RGB") if image.has_transparency_data else image


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)
