"""Synthetic defects: exact masks, and the same in every process."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomalib_rd.data import synthetic
from anomalib_rd.data.synthetic import (
    KINDS,
    MAX_SHARE,
    MIN_CHANGE,
    MIN_SHARE,
    add_defect,
    blob,
    difference,
    foreground,
    hash_fraction,
    perlin,
    random_generator,
    visible_change,
)


def object_image(size=(96, 96), ink=(60, 90, 160), ground=(235, 230, 225)):
    """An ellipse on a plain background with some noise: the image and the ellipse."""
    rows, columns = (np.linspace(-1, 1, length) for length in size)
    inside = np.hypot(rows[:, None] / 0.7, columns[None] / 0.5) < 1
    image = np.where(inside[..., None], ink, ground)
    grain = np.random.default_rng(0).normal(0, 4, (*size, 1))
    return np.clip(image + grain, 0, 255).astype(np.uint8), inside


def texture_image(size=(96, 96)):
    noise = np.random.default_rng(1).normal(0, 1, size)
    grey = 120 + 200 * ndimage.gaussian_filter(noise, 2)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@st.composite
def images(draw_from):
    """Objects, textures, uniform images and noise, of any size from 64."""
    size = draw_from(st.tuples(st.integers(64, 130), st.integers(64, 130)))
    kind = draw_from(st.sampled_from(["object", "texture", "noise", 0, 255, 128]))
    if kind == "object":
        return object_image(size)[0]
    if kind == "texture":
        return texture_image(size)
    if kind == "noise":
        return np.random.default_rng(2).integers(0, 256, (*size, 3)).astype(np.uint8)
    return np.full((*size, 3), kind, np.uint8)


@settings(max_examples=60)
@given(image=images(), kind=st.sampled_from(list(KINDS)), seed=st.integers(0, 2**32))
def test_the_mask_is_where_the_image_changed(image, kind, seed):
    before = image.copy()
    changed, mask = add_defect(image, np.random.default_rng(seed), kind)
    assert (image == before).all()
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    assert (mask.shape, mask.dtype) == (image.shape[:2], bool)
    assert MIN_SHARE <= mask.mean() <= MAX_SHARE
    changes = difference(image, changed)
    assert not changes[~mask].any()
    # The others are pinholes that the mask closes.
    assert (changes[mask] >= MIN_CHANGE).mean() > 0.6
    assert changes[mask].mean() >= 20


@settings(max_examples=20)
@given(image=images(), kind=st.sampled_from(list(KINDS)), seed=st.integers(0, 2**32))
def test_the_defect_depends_on_the_random_numbers_alone(image, kind, seed):
    one, other = (add_defect(image, random_generator(seed, "a.png"), kind) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    third = add_defect(image, random_generator(seed, "b.png"), kind)
    assert image.std() == 0 or (one[0] != third[0]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_a_defect_is_on_the_object(kind):
    image, inside = object_image((128, 128))
    masks = [add_defect(image, random_generator(seed, kind), kind)[1] for seed in range(12)]
    assert np.mean([inside[mask].mean() for mask in masks]) > 0.75
    centres = [ndimage.center_of_mass(mask) for mask in masks]
    assert np.std(centres, axis=0).min() > 5  # not always at the same position


@given(image=images())
@settings(max_examples=10)
def test_without_an_acceptable_defect_there_is_a_plain_disc(image):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "ATTEMPTS", 0)
        changed, mask = add_defect(image, np.random.default_rng(0))
    assert 0.008 < mask.mean() < 0.012
    assert difference(image, changed)[mask].min() > 100 and (changed == image)[~mask].all()


def test_all_kinds_and_sizes_are_drawn():
    image = texture_image((128, 128))
    made = [add_defect(image, random_generator(seed, "x"))[1].mean() for seed in range(40)]
    assert min(made) < 0.01 and max(made) > 0.03
    drawn = {str(random_generator(seed, "x").choice(list(KINDS))) for seed in range(40)}
    assert drawn == set(KINDS)


def test_foreground_is_the_object_or_all_of_a_texture():
    image, inside = object_image()
    assert (foreground(image) == inside).mean() > 0.97
    assert foreground(255 - image).mean() == pytest.approx(foreground(image).mean(), abs=0.02)
    assert foreground(texture_image()).all()
    assert foreground(np.zeros((64, 80, 3), np.uint8)).all()
    # An object that fills the image is all foreground too.
    assert foreground(object_image()[0][30:-30, 30:-30]).all()


def test_invisible_changes_are_not_in_the_mask():
    image = texture_image()
    after = image.copy()
    after[10:20, 10:20] += 3
    after[50:60, 50:70] += 40
    after[55, 60] = image[55, 60]  # a pinhole
    after[80, 80] += 40  # a speck
    expected = np.zeros(image.shape[:2], bool)
    expected[50:60, 50:70] = True
    assert (visible_change(image, after) == expected).all()


def test_perlin_noise_is_smooth_unbiased_and_zero_at_its_grid():
    noise = perlin((256, 192), 16, np.random.default_rng(0))
    assert noise.shape == (256, 192) and abs(noise).max() <= 1.01
    assert abs(noise[::16, ::16]).max() < 1e-12
    assert abs(noise.mean()) < 0.05 and noise.std() > 0.2
    assert abs(np.diff(noise, axis=0)).max() < 0.25


@settings(max_examples=20)
@given(pixels=st.integers(1, 2000), seed=st.integers(0, 99))
def test_a_blob_has_its_size_and_position(pixels, seed):
    region = blob((80, 100), (40, 50), pixels, np.random.default_rng(seed))
    assert region.sum() == pixels
    middle = ndimage.center_of_mass(region)
    assert np.hypot(middle[0] - 40, middle[1] - 50) < 3 + np.sqrt(pixels)


FRESH = """
from anomalib_rd.data.synthetic import add_defect, hash_fraction, random_generator
import hashlib, sys, numpy as np
image = np.load(sys.argv[1])
changed, mask = add_defect(image, random_generator(5, "c/train/good/000.png"))
print(hashlib.sha256(changed.tobytes() + mask.tobytes()).hexdigest(), hash_fraction(5, "x"))
assert "torch" not in sys.modules
"""


def test_another_process_makes_the_same_without_torch(tmp_path):
    np.save(tmp_path / "image.npy", object_image()[0])
    command = [sys.executable, "-c", FRESH, str(tmp_path / "image.npy")]
    outputs = {
        subprocess.run(
            command, env={"PYTHONHASHSEED": hashing}, capture_output=True, text=True, check=True
        ).stdout
        for hashing in ("1", "2")
    }
    assert len(outputs) == 1 and outputs.pop().endswith(f" {hash_fraction(5, 'x')}\n")


def test_hash_fractions_are_uniform():
    fractions = [hash_fraction(0, f"{i}.png") for i in range(500)]
    assert 0 <= min(fractions) < 0.02 and 0.98 < max(fractions) < 1
    assert np.mean(fractions) == pytest.approx(0.5, abs=0.05)
    assert hash_fraction(1, "0.png") != fractions[0]
