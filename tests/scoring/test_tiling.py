"""Tiles: where they lie, weights that sum to one, no seams, and whole images as before."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_rd.errors import UserError
from anomalib_rd.scoring import AnomalyScorer, Tiling, score_images
from anomalib_rd.scoring.tiling import blend_weights, tile_starts

SIDES = st.integers(2, 6).map(lambda n: 32 * n)
OVERLAPS = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 0.9])


def grey(tiles):
    """A map that is a function of each pixel alone."""
    return tiles.float().square().mean(1)


@given(length=st.integers(64, 700), size=SIDES, overlap=OVERLAPS)
def test_tiles_cover_a_side_overlap_enough_and_end_at_the_border(length, size, overlap):
    if size > length:
        return
    first = tile_starts(length, size, overlap)
    assert first[0] == 0 and first[-1] + size == length
    steps = [b - a for a, b in pairwise(first)]
    assert all(0 < step <= max(1, round((1 - overlap) * size)) for step in steps)


@given(length=st.integers(64, 700), size=SIDES, overlap=OVERLAPS)
def test_weights_sum_to_one_at_every_pixel(length, size, overlap):
    if size > length:
        return
    total = torch.zeros(length)
    for start, window in zip(
        tile_starts(length, size, overlap), blend_weights(length, size, overlap), strict=True
    ):
        assert (window > 0).all()
        total[start : start + size] += window
    torch.testing.assert_close(total, torch.ones(length), rtol=0, atol=1e-6)


def test_weights_have_no_step_where_a_tile_begins_or_ends():
    """From pixel to pixel no faster than the ramp of the overlap: 16 of 64 pixels."""
    for length in (256, 200, 100, 80):
        for start, window in zip(
            tile_starts(length, 64, 0.25), blend_weights(length, 64, 0.25), strict=True
        ):
            whole = torch.zeros(length)
            whole[start : start + 64] = window
            assert whole.diff().abs().max() < 0.2


@settings(max_examples=25)
@given(
    image=st.tuples(SIDES, SIDES),
    tile=st.tuples(SIDES, SIDES),
    overlap=OVERLAPS,
    batch_size=st.integers(1, 5),
)
def test_a_pointwise_map_is_the_same_tiled_and_whole(image, tile, overlap, batch_size):
    tile = (min(image[0], tile[0]), min(image[1], tile[1]))
    images = torch.randint(0, 256, (2, 3, *image), generator=torch.manual_seed(0)) / 255
    sizes = []

    def map_of(tiles):
        sizes.append(len(tiles))
        assert tiles.shape[1:] == (3, *tile)
        return grey(tiles)

    tiling = Tiling(tile, overlap, batch_size)
    torch.testing.assert_close(tiling.map(images, map_of), grey(images), rtol=1e-6, atol=1e-6)
    assert sum(sizes) == 2 * len(tiling.boxes(image)) and max(sizes) <= batch_size


def test_tiles_are_image_by_image_and_row_by_row():
    images = torch.arange(2 * 64 * 96).view(2, 1, 64, 96)
    tiles = Tiling([64, 64], overlap=0.5).split(images)
    assert torch.equal(tiles, torch.stack([i[:, :, c : c + 64] for i in images for c in (0, 32)]))


def test_neighbours_that_disagree_blend_without_a_step():
    """Each tile's map is a constant of its own: the worst case."""
    tiling = Tiling([64, 64], overlap=0.5)
    count = len(tiling.boxes((64, 160)))
    maps = torch.arange(count).view(-1, 1, 1).expand(-1, 64, 64).float()
    (blended,) = tiling.blend(maps, (64, 160))
    row = blended[0]
    torch.testing.assert_close(blended, row.expand(64, -1))
    assert row[0] == 0 and row[-1] == count - 1
    assert (row.diff() >= -1e-6).all() and row.diff().max() < 0.06


class Distances(torch.nn.Module):
    """Networks whose students differ from the teacher by a convolution of the image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.teacher = torch.nn.Conv2d(3, 4, 4, stride=4)
        self.student = torch.nn.Conv2d(3, 4, 4, stride=4)

    def forward(self, images):
        images = images.float() / 255
        return [self.teacher(images)], [self.student(images)]


@torch.inference_mode()
def test_a_tile_as_large_as_the_image_changes_no_bit():
    images = torch.randint(0, 256, (3, 3, 96, 160), dtype=torch.uint8)
    networks, scorer = Distances(), AnomalyScorer()
    whole = score_images(images, networks, scorer, Tiling())
    direct = scorer(*networks(images), (96, 160))
    tiled = score_images(images, networks, scorer, Tiling([96, 160]))
    for scored in (direct, tiled):
        assert torch.equal(scored.maps, whole.maps) and torch.equal(scored.scores, whole.scores)


@torch.inference_mode()
def test_a_constant_image_has_no_seams():
    images = torch.full((1, 3, 128, 224), 90, dtype=torch.uint8)
    (tiled,), score = score_images(images, Distances(), AnomalyScorer(), Tiling([64, 64]))
    assert tiled.shape == (128, 224)
    assert tiled.std() < 1e-6 and score.item() == tiled.max()


@torch.inference_mode()
def test_maps_are_blended_before_they_are_smoothed():
    images = torch.randint(0, 256, (1, 3, 64, 160), dtype=torch.uint8)
    networks, tiling = Distances(), Tiling([64, 96], 0.5)
    rough = score_images(images, networks, AnomalyScorer(sigma=0), tiling)
    smooth = score_images(images, networks, AnomalyScorer(sigma=4), tiling)
    assert torch.equal(smooth.maps, AnomalyScorer(sigma=4).postprocess(rough.maps).maps)


@pytest.mark.parametrize(
    "size", [[64], [64, 80], [32, 64], [0, 64], [64, 64, 64], 64, "64", [64.0, 64], [None, 64]]
)
def test_other_sizes_of_tiles_are_refused(size):
    with pytest.raises(ValueError, match=r"^size="):
        Tiling(size)


@pytest.mark.parametrize(
    ("key", "value"), [("overlap", -0.1), ("overlap", 1.0), ("overlap", 64), ("batch_size", 0)]
)
def test_wrong_values_are_named(key, value):
    with pytest.raises(ValueError, match=rf"^{key}={value}: "):
        Tiling([64, 64], **{key: value})


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_an_image_smaller_than_a_tile_is_refused(size):
    with pytest.raises(UserError, match=r"tiling\.size=\[96, 96\].*image_size=\[(64, 96|96, 64)\]"):
        Tiling([96, 96]).boxes(size)
