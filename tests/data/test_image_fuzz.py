"""Images of all kinds, valid and broken: read correctly, or refused by name."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalib_rd.data.images import load_image, load_mask
from anomalib_rd.errors import UserError

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]
FORMATS = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP"}
FOREIGN = {"eps": "EPS", "pdf": "PDF", "tga": "TGA", "ico": "ICO"}
# EXIF orientation -> how to rotate the stored array upright.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
LOSSY = 24
"""Levels by which JPEG and WEBP may change a smooth image."""


def smooth(height, width):
    """A gradient in three colours, (H, W, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    planes = (rows * 5, columns * 5, 255 - (rows + columns) * 2)
    return np.stack(planes, axis=2).clip(0, 255).astype(np.uint8)


def in_mode(rgb, mode):
    """The image in a mode, and the expected result: uint8 (H, W, 3)."""
    image = Image.fromarray(rgb)
    if mode in ("I;16", "I", "F"):
        grey = np.asarray(image.convert("L"))
        kinds = {"I;16": (np.uint16, 257), "I": (np.int32, 257), "F": (np.float32, 1 / 255)}
        kind, scale = kinds[mode]
        expected = np.repeat(grey[..., None], 3, axis=2)
        return Image.fromarray((grey.astype(np.float64) * scale).astype(kind)), expected
    made = image.convert(mode)
    if mode in ("LA", "RGBA"):  # transparent pixels keep their colours
        made.putalpha(Image.fromarray(rgb[..., 0]))
        return made, np.asarray(image.convert("L" if mode == "LA" else "RGB").convert("RGB"))
    return made, np.asarray(made.convert("RGB"))


def encoded(image, name, exif=None, frames=()):
    """The bytes of the file; None if the format does not support the mode."""
    if image.mode in ("I;16", "I", "F") and name == "WEBP":
        return None  # Pillow would clip the values
    buffer = io.BytesIO()
    more = {"exif": exif} if exif is not None else {}
    if frames:
        more |= {"save_all": True, "append_images": list(frames)}
    try:
        image.save(buffer, format=name, **more)
    except (OSError, ValueError, KeyError):
        return None
    return buffer.getvalue()


def read(path):
    """The image as an array, or the one-line error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            return np.asarray(load_image(path)), None
    except UserError as error:
        line = str(error)
        assert str(path) in line and "\n" not in line
        return None, line


EXAMPLES = int(os.environ.get("EXAMPLES", 60))
FEW = settings(max_examples=EXAMPLES, derandomize="EXAMPLES" not in os.environ, database=None)


@FEW
@given(
    mode=st.sampled_from(MODES),
    ending=st.sampled_from(list(FORMATS)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    orientation=st.sampled_from(list(TURNS)),
    animated=st.booleans(),
)
def test_a_valid_image_is_read_correctly(
    tmp_path_factory, mode, ending, size, orientation, animated
):
    image, expected = in_mode(smooth(*size), mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = ending in ("jpg", "png", "webp") and orientation > 1
    frames = [image.copy()] if animated and ending in ("png", "tif", "webp") else []
    data = encoded(image, FORMATS[ending], exif if turned else None, frames)
    if data is None:
        return
    path = tmp_path_factory.mktemp("image") / f"a.{ending}"
    path.write_bytes(data)
    pixels, error = read(path)
    assert error is None
    upright = TURNS[orientation](expected) if turned else expected
    assert pixels.shape == upright.shape and pixels.dtype == np.uint8
    if ending in ("jpg", "webp"):
        distance = np.abs(pixels.astype(int) - upright)
        assert distance.mean() <= LOSSY or min(size) < 8
    else:
        assert np.array_equal(pixels, upright)


@FEW
@given(
    ending=st.sampled_from(list(FORMATS)),
    mode=st.sampled_from(["L", "RGB", "P"]),
    damage=st.sampled_from(["cut", "flip", "magic", "zeros", "noise", "twice"]),
    where=st.floats(0, 1, exclude_max=True),
    noise=st.binary(min_size=1, max_size=12),
)
def test_a_broken_image_is_an_error_with_its_name_or_still_an_image(
    tmp_path_factory, ending, mode, damage, where, noise
):
    data = bytearray(encoded(in_mode(smooth(24, 32), mode)[0], FORMATS[ending]) or b"")
    position = int(where * len(data))
    if damage == "cut":
        data = data[:position]
    elif damage == "flip" and data:
        data[position] ^= 255
    elif damage == "magic":
        data[:4] = noise[:4].ljust(4, b"\0")
    elif damage == "zeros":
        data[position:] = bytes(len(data) - position)
    elif damage == "noise":
        data[position:position] = noise
    elif damage == "twice":
        data = data + data
    path = tmp_path_factory.mktemp("image") / f"a.{ending}"
    path.write_bytes(data)
    pixels, _ = read(path)
    if pixels is not None:
        # With another size in the header it is another, small image.
        assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    try:
        mask = np.asarray(load_mask(path))
        assert mask.ndim == 2 and mask.dtype == np.uint8
    except UserError as error:
        assert str(path) in str(error)


def huge_png(width, height):
    """A few bytes with this size in the header."""

    def chunk(name, body):
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (0, 5)])
def test_huge_dimensions_are_refused_before_decoding(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(huge_png(*size))
    assert read(path)[1]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("foreign", FOREIGN)
def test_content_of_another_format_is_refused(tmp_path, foreign, ending):
    """Pillow would start an interpreter for PostScript."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray(smooth(20, 20)).save(path, format=FOREIGN[foreign])
    assert read(path)[1]
