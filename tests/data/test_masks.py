"""Which pixels of a mask are defect, for masks of all kinds of tools."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from image_trees import write_image
from PIL import Image, ImageDraw

from anomalib_rd.data.dataset import AnomalyDataset
from anomalib_rd.data.dataset_check import ERROR, NOTE, WARNING, decode_sample
from anomalib_rd.data.images import load_mask, orientation, read_mask, read_pair
from anomalib_rd.data.mask_rules import check_mask_rule, has_lost_spots, mask_levels
from anomalib_rd.data.sources.source import Sample
from anomalib_rd.errors import UserError

SIZE = (40, 60)
COLOURS = [(0, 0, 0), (64, 0, 0), (0, 0, 200), (9, 9, 9)]
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (64, 0, 0), (0, 0, 64), (224, 224, 192)]


def regions():
    """Three defect areas 1 to 3, two of them adjacent, on background 0."""
    numbers = np.zeros(SIZE, np.uint8)
    numbers[5:15, 5:25] = 1
    numbers[15:25, 5:25] = 2
    numbers[28:36, 40:55] = 3
    return numbers


NUMBERS = regions()
DEFECT = NUMBERS > 0


def shades(*values, dtype=np.uint8):
    """The areas with these values."""
    return np.array(values)[NUMBERS].astype(dtype)


def palette(colours, numbers=NUMBERS):
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def rgba(colours, opacity):
    """Areas of these colours and opacities."""
    pixels = np.array(colours, np.uint8)[NUMBERS]
    return Image.fromarray(np.dstack([pixels, np.array(opacity, np.uint8)[NUMBERS]]))


def with_void():
    """Pascal VOC: class 1 with a border of 255."""
    numbers = np.where(NUMBERS == 1, 1, 0).astype(np.uint8)
    numbers[3:5, 3:27] = numbers[15:17, 3:27] = 255
    numbers[3:17, 3:5] = numbers[3:17, 25:27] = 255
    return numbers


TOOLS = {
    "black and white": Image.fromarray(shades(0, 255, 255, 255)),
    "one bit": Image.fromarray(DEFECT),
    "0 and 1": Image.fromarray(shades(0, 1, 1, 1)),
    "0 and 100": Image.fromarray(shades(0, 100, 100, 100)),
    "class numbers": Image.fromarray(shades(0, 1, 2, 3)),
    "more class numbers": Image.fromarray(shades(0, 3, 17, 40)),
    "a class and void": Image.fromarray(shades(0, 1, 2, 255)),
    "grey classes": Image.fromarray(shades(0, 100, 255, 40)),
    "spread classes": Image.fromarray(shades(0, 85, 170, 255)),
    "16 bit white": Image.fromarray(shades(0, 65535, 65535, 65535, dtype=np.uint16)),
    "16 bit numbers": Image.fromarray(shades(0, 1, 2, 3, dtype=np.uint16)),
    "16 bit instances": Image.fromarray(shades(0, 1001, 300, 26003, dtype=np.uint16)),
    "8 bit stored as 16": Image.fromarray(shades(0, 255, 255, 100, dtype=np.uint16)),
    "32 bit instances": Image.fromarray(shades(0, 70000, 7, 8, dtype=np.int32)),
    "float": Image.fromarray(shades(0, 0.2, 1, 0.5, dtype=np.float32)),
    "float classes": Image.fromarray(shades(0, 1, 2, 300, dtype=np.float32)),
    "red": Image.fromarray(np.array([(0, 0, 0)] + [(255, 0, 0)] * 3, np.uint8)[NUMBERS]),
    "colours": Image.fromarray(np.array(COLOURS, np.uint8)[NUMBERS]),
    "VOC palette": palette(VOC),
    "palette dark to bright": palette([(0, 0, 0), (10, 0, 0), (0, 99, 0), (255, 255, 255)]),
    "palette without black": palette([(68, 1, 84), (49, 104, 142), (53, 183, 121), (253, 231, 37)]),
    "palette of one colour": palette([(0, 0, 0)] * 4),
    "palette with black on red": palette([(255, 0, 0), (0, 0, 0)], 1 - DEFECT),
    "palette of grey steps": Image.fromarray(shades(0, 100, 255, 100)).convert("P"),
    "white, opacity is the mask": rgba([(255, 255, 255)] * 4, [0, 255, 255, 255]),
    "black, opacity is the mask": rgba([(0, 0, 0)] * 4, [0, 255, 255, 255]),
    "black on transparent white": rgba([(255, 255, 255)] + [(0, 0, 0)] * 3, [0, 255, 255, 255]),
    "red on transparent white": rgba([(255, 255, 255)] + [(255, 0, 0)] * 3, [0, 255, 255, 255]),
    "half opaque colours": rgba([(0, 0, 0), (255, 0, 0), (0, 90, 0), (0, 0, 255)], [0, 90, 90, 90]),
    "opaque colours on black": rgba([(0, 0, 0)] + [(255, 0, 0)] * 3, [255, 255, 255, 255]),
    "all half opaque": rgba([(0, 0, 0)] + [(255, 0, 0)] * 3, [128, 128, 128, 128]),
    "grey and opacity": rgba([(255, 255, 255)] * 4, [0, 255, 255, 255]).convert("LA"),
}  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_everything_but_the_background_is_defect(tmp_path, tool):
    image = TOOLS[tool]
    path = tmp_path / ("m.tif" if image.mode in ("I", "F") else "m.png")
    image.save(path)
    assert np.array_equal(read_mask(path, SIZE), DEFECT)
    smaller = read_mask(path, (20, 30))
    assert 0.8 < smaller.float().mean() / DEFECT.mean() < 1.2


def test_transparent_palette_entry_is_background(tmp_path):
    palette([(255, 255, 255)] * 4).save(tmp_path / "m.png", transparency=0)
    assert np.array_equal(read_mask(tmp_path / "m.png", SIZE), DEFECT)


def test_the_void_border_of_pascal_voc_is_defect():
    numbers = with_void()
    assert np.array_equal(mask_levels(Image.fromarray(numbers), "m") >= 128, numbers > 0)


def drawn(seed, size=(400, 500)):
    """Shapes and lines in black and white, some finer than a pixel of the resized mask."""
    image = Image.new("L", size)
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(seed)
    for _ in range(3):
        x, y = rng.integers(40, 360, 2)
        w, h = rng.integers(3, 60, 2)
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        shape([x, y, x + w, y + h], fill=255)
        draw.line([*rng.integers(0, 400, 4).tolist()], fill=255, width=int(rng.integers(1, 6)))
    return image


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("by", [1.3, 2, 3.5, 4])
@pytest.mark.parametrize("how", [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])
def test_soft_edges_are_cut_at_half_of_white(seed, by, how):
    """As for resized masks of MVTec AD: published results depend on this rule."""
    grey = drawn(seed).resize((int(400 / by), int(500 / by)), how)
    assert np.array_equal(mask_levels(grey, "m"), np.asarray(grey))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("quality", [50, 75, 95, 100])
def test_jpeg_noise_is_not_a_class(tmp_path, seed, quality):
    image = drawn(seed)
    image.save(tmp_path / "m.jpg", quality=quality)
    levels = np.asarray(load_mask(tmp_path / "m.jpg"))
    assert np.array_equal(levels >= 128, np.asarray(Image.open(tmp_path / "m.jpg")) >= 128)


def test_classes_with_soft_edges_are_all_defect():
    large = Image.fromarray(np.kron(shades(0, 100, 255, 60), np.ones((8, 8), np.uint8)))
    grey = large.resize((120, 80), Image.Resampling.BILINEAR)
    truth = np.kron(DEFECT, np.ones((2, 2), bool))
    assert (mask_levels(grey, "m") >= 128)[truth].mean() > 0.98


def test_rules_nonzero_and_half():
    grey = Image.fromarray(shades(0, 100, 255, 3))
    assert np.array_equal(mask_levels(grey, "m", "half") >= 128, NUMBERS == 2)
    soft = drawn(0).resize((100, 125), Image.Resampling.BILINEAR)
    assert np.array_equal(mask_levels(soft, "m", "nonzero") > 0, np.asarray(soft) > 0)
    with pytest.raises(UserError, match="mask_rule=x"):
        check_mask_rule("x")


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_invalid_values(tmp_path, one_line, value):
    Image.fromarray(shades(0, 1, 1, value, dtype=np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(UserError) as info:
        read_mask(tmp_path / "m.tif", SIZE)
    assert "m.tif" in one_line(info)


def test_the_rule_applies_to_dataset_and_cache(tmp_path, monkeypatch):
    from anomalib_rd.data.image_cache import ImageCache

    monkeypatch.setenv("ANOMALIB_RD_CACHE", str(tmp_path / "cache"))
    image = write_image(tmp_path / "a.png", SIZE[::-1])
    Image.fromarray(shades(0, 100, 255, 255)).save(tmp_path / "m.png")
    sample = Sample(image, "c", "crack", 1, tmp_path / "m.png")
    cache = ImageCache()
    for _ in range(2):
        for rule, truth in (("auto", DEFECT), ("half", NUMBERS > 1)):
            data = AnomalyDataset([sample], SIZE, cache=cache, mask_rule=rule)
            assert np.array_equal(data[0]["mask"], truth)


class TestCheck:
    @pytest.fixture
    def decode(self, tmp_path):
        def write_and_decode(mask, image=None):
            path = tmp_path / "a.png"
            (image or Image.new("RGB", SIZE[::-1])).save(path)
            mask.save(tmp_path / "m.png")
            return decode_sample(Sample(path, "c", "crack", 1, tmp_path / "m.png"))

        return write_and_decode

    def test_soft_edges_are_recognised(self, decode):
        assert decode(TOOLS["grey classes"]).soft is False
        assert decode(drawn(0).resize(SIZE[::-1], Image.Resampling.BILINEAR)).soft is True

    @pytest.mark.parametrize(("level", "severity"), [(0, ERROR), (255, WARNING)])
    def test_a_mask_of_one_level(self, decode, level, severity):
        (problem,) = decode(Image.new("L", SIZE[::-1], level)).problems
        assert problem[0] == severity and "m.png" in problem[1]

    def test_a_spot_below_half_of_white_is_lost(self, decode):
        soft = np.array(drawn(1).resize(SIZE[::-1], Image.Resampling.BILINEAR))
        assert has_lost_spots(soft) is False or decode(Image.fromarray(soft)).lost
        soft[0:2, 0:2] = [[30, 60], [20, 40]]
        assert decode(Image.fromarray(soft)).lost

    def test_one_finding_for_each_kind(self, tmp_path):
        from anomalib_rd.data.dataset_check import _ambiguous_masks

        path = write_image(tmp_path / "a.png")
        sample = Sample(path, "c", "crack", 1, tmp_path / "m.png")
        one = decode_sample(Sample(path, "c", "good", 0))
        decoded = [replace(one, lost=True), replace(one, lost=True, ambiguous=True)]
        findings = _ambiguous_masks("c", [sample, sample], decoded)
        assert [finding.severity for finding in findings] == [NOTE, WARNING]


def write_rotated(pixels, turn, path):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(path, exif=exif)
    return path


class TestExif:
    """The image is stored rotated; its defect is in the stored upper left."""

    @pytest.fixture
    def stored(self):
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[2:9, 3:12] = 200
        return pixels

    @pytest.mark.parametrize("turn", [5, 6, 7, 8])
    def test_a_mask_of_the_stored_image(self, tmp_path, stored, turn):
        image = write_rotated(stored, turn, tmp_path / "a.png")
        Image.fromarray((stored[..., 0] > 0).astype(np.uint8) * 255).save(tmp_path / "m.png")
        pixels, mask = read_pair(image, tmp_path / "m.png", (30, 20))
        assert mask.sum() == 63 and torch.equal(mask, pixels[0] > 0)

    @pytest.mark.parametrize("turn", [5, 6, 7, 8])
    def test_a_mask_with_the_exif_data_that_its_image_lost(self, tmp_path, stored, turn):
        Image.fromarray(stored).save(tmp_path / "a.png")
        write_rotated((stored[..., 0] > 0).astype(np.uint8) * 255, turn, tmp_path / "m.png")
        pixels, mask = read_pair(tmp_path / "a.png", tmp_path / "m.png", (20, 30))
        assert mask.sum() == 63 and torch.equal(mask, pixels[0] > 0)

    @pytest.mark.parametrize("turn", range(1, 9))
    def test_a_mask_rotated_like_its_image_and_an_upright_mask(self, tmp_path, stored, turn):
        image = write_rotated(stored, turn, tmp_path / "a.png")
        both = write_rotated((stored[..., 0] > 0).astype(np.uint8) * 255, turn, tmp_path / "m.png")
        upright = load_mask(both)
        upright.save(tmp_path / "upright.png")
        size = (30, 20) if turn > 4 else (20, 30)
        for path in (both, tmp_path / "upright.png"):
            pixels, mask = read_pair(image, path, size)
            assert torch.equal(mask, pixels[0] > 0)

    @pytest.mark.parametrize(
        ("turn", "square", "ambiguous"), [(3, False, True), (6, True, True), (6, False, False)]
    )
    def test_the_check_reports_a_mask_that_fits_both_ways(
        self, tmp_path, stored, turn, square, ambiguous
    ):
        stored = stored[:, :20] if square else stored
        image = write_rotated(stored, turn, tmp_path / "a.png")
        assert orientation(image) == turn
        Image.fromarray((stored[..., 0] > 0).astype(np.uint8) * 255).save(tmp_path / "m.png")
        assert (
            decode_sample(Sample(image, "c", "crack", 1, tmp_path / "m.png")).ambiguous is ambiguous
        )

    def test_a_mask_that_fits_neither_way(self, tmp_path, stored, one_line):
        image = write_rotated(stored, 6, tmp_path / "a.png")
        Image.new("L", (31, 20), 255).save(tmp_path / "m.png")
        with pytest.raises(UserError) as info:
            read_pair(image, tmp_path / "m.png", (30, 20))
        assert "31x20" in one_line(info) and "20x30" in one_line(info)
