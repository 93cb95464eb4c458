"""Decoding: modes, orientation, resizing, masks, bad files."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_trees import write_image, write_mask
from PIL import Image
from torchvision.transforms.v2 import functional as F

from anomalib_rd.data.images import load_image, read_image, read_mask
from anomalib_rd.errors import UserError

RNG = np.random.default_rng(0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.integers(1, 90)] * 2), st.tuples(*[st.integers(1, 90)] * 2))
def test_equals_torchvision_on_pil(tmp_path, stored, size):
    path = write_image(tmp_path / "a.png", stored)
    with Image.open(path) as image:
        expected = F.pil_to_tensor(F.resize(image, list(size), F.InterpolationMode.BILINEAR))
    read = read_image(path, size)
    assert read.dtype == torch.uint8
    assert read.is_contiguous()
    assert torch.equal(read, expected)


def test_an_image_of_the_right_size_is_unchanged(tmp_path):
    pixels = RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", (8, 12)).permute(1, 2, 0), pixels)


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("l.png", Image.fromarray(GREY)),
        ("i16.png", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("i16.tif", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("i32.tif", Image.fromarray(GREY.astype(np.int32) * 257)),
        ("f.tif", Image.fromarray((GREY / 255).astype(np.float32))),
        ("la.png", Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(255 - GREY)])),
        ("p.png", Image.fromarray(GREY).convert("P")),
    ],
)
def test_every_grey_mode_gives_the_same_values(tmp_path, name, image):
    image.save(tmp_path / name)
    read = read_image(tmp_path / name, (16, 16))
    assert read.shape == (3, 16, 16)
    assert all(np.array_equal(channel, GREY) for channel in read)


def test_big_endian_16_bit(tmp_path):
    raw = (GREY.astype(np.uint16) * 257).astype(">u2").tobytes()
    Image.frombytes("I;16B", (16, 16), raw).save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif", (16, 16))[0], GREY)


def test_alpha_is_dropped(tmp_path):
    colours = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", (8, 8)).permute(1, 2, 0), colours[..., :3])


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=bytes([255, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_image(tmp_path / "a.png", (4, 4))
    assert read[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr"])
def test_other_modes(tmp_path, mode):
    Image.new("RGB", (4, 4), "white").convert(mode).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", (4, 4)).min() > 250


def test_exif_orientation(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # left half white; rotated by 90 degrees clockwise: upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert load_image(tmp_path / "a.png").size == (8, 16)
    read = read_image(tmp_path / "a.png", (16, 8))
    assert read[:, :8].min() == 255
    assert read[:, 8:].max() == 0


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_truncated(tmp_path, one_line, ending, read):
    path = write_image(tmp_path / f"a.{ending}", (64, 64))
    truncate(path)
    with pytest.raises(UserError) as info:
        read(path, (8, 8))
    assert str(path) in one_line(info)


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_text("<html>"),
        flip_a_byte,
        lambda p: (p.unlink(), p.mkdir()),
    ],
)
def test_unreadable(tmp_path, one_line, damage):
    path = write_image(tmp_path / "a.png", (64, 64))
    damage(path)
    with pytest.raises(UserError) as info:
        read_image(path, (8, 8))
    assert str(path) in one_line(info)


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"a\.png"):
        read_image(tmp_path / "a.png", (8, 8))


def test_decompression_bomb(tmp_path, monkeypatch, one_line):
    path = write_image(tmp_path / "a.png", (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError) as info:
        read_image(path, (8, 8))
    assert "bomb" in one_line(info)


@pytest.mark.parametrize("values", [[0.0, 300.0], [-1.0, 0.5], [float("nan"), 0.5]])
def test_float_image_out_of_range(tmp_path, one_line, values):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError) as info:
        read_image(tmp_path / "a.tif", (1, 2))
    assert "a.tif" in one_line(info)


LEFT = torch.zeros(8, 12, dtype=torch.bool)
LEFT[:, :6] = True


@pytest.mark.parametrize("white", [255, 200, 1, 3])
def test_mask_levels(tmp_path, white):
    read = read_mask(write_mask(tmp_path / "m.png", white=white), (8, 12))
    assert read.dtype == torch.bool
    assert torch.equal(read, LEFT)


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_mask_modes(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(LEFT.numpy().astype(np.uint16) * 65535)
    else:
        image = Image.fromarray(LEFT.numpy().astype(np.uint8) * 255).convert(mode)
    assert image.mode == mode
    image.save(tmp_path / "m.png")
    assert torch.equal(read_mask(tmp_path / "m.png", (8, 12)), LEFT)


@pytest.mark.parametrize("colour", [(128, 0, 0), (0, 0, 255)])
def test_mask_with_a_colour_palette(tmp_path, colour):
    image = Image.fromarray(LEFT.numpy().astype(np.uint8))
    image.putpalette([0, 0, 0, *colour])
    image.save(tmp_path / "m.png")
    assert torch.equal(read_mask(tmp_path / "m.png", (8, 12)), LEFT)


def test_empty_mask(tmp_path):
    assert not read_mask(write_mask(tmp_path / "m.png", white=0), (8, 12)).any()


def test_mask_threshold_is_above_half_after_resizing(tmp_path):
    pixels = RNG.integers(0, 256, (40, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    resized = F.resize(Image.fromarray(pixels), [16, 16], F.InterpolationMode.BILINEAR)
    expected = F.to_dtype(F.pil_to_tensor(resized), torch.float32, scale=True)[0] > 0.5
    assert torch.equal(read_mask(tmp_path / "m.png", (16, 16)), expected)


def test_mask_of_another_size(tmp_path, one_line):
    path = write_mask(tmp_path / "m.png", (12, 8))
    assert read_mask(path, (4, 4), (8, 12)).shape == (4, 4)
    with pytest.raises(UserError) as info:
        read_mask(path, (4, 4), (12, 8), tmp_path / "a.png")
    message = one_line(info)
    assert all(part in message for part in ("m.png", "12x8", "a.png", "8x12"))
