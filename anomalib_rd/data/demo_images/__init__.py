"""Synthetic photographs of industrial parts and surfaces, with exact defect masks.

A subject is a function ``draw(scene) -> image``. A normal and a defective image of one scene
differ in the defect alone, so their difference is the mask.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from anomalib_rd.data.demo_images.drawing import Scene, photograph_scene
from anomalib_rd.data.demo_images.parts import button, chip, label, tablet, washer
from anomalib_rd.data.demo_images.textures import brick, grass, gravel

CHANGED = 2.5 / 255
"""Smallest difference of a colour, before the camera, that counts as a defect."""
SPECK, PINHOLE = 8, 60
"""Smaller regions of a mask, in pixels, are removed; smaller holes in it are filled."""


@dataclass(frozen=True)
class Category:
    """A subject and its defects."""

    draw: Callable[[Scene], np.ndarray]
    defects: tuple[str, ...]


CATEGORIES: dict[str, Category] = {
    "brick": Category(brick, ("crack", "spalled", "stain", "worn")),
    "button": Category(button, ("closed_hole", "dent", "scratch", "shifted_hole")),
    "chip": Category(chip, ("bent_pin", "misprint", "missing_pin", "scratch")),
    "grass": Category(grass, ("bare", "dry", "trodden", "wire")),
    "gravel": Category(gravel, ("fines", "leaf", "oil", "overgrown")),
    "label": Category(label, ("faded", "misprint", "smudge", "torn")),
    "tablet": Category(tablet, ("chipped", "crack", "imprint", "spot")),
    "washer": Category(washer, ("notch", "off_centre", "rust", "scratch")),
}
TEXTURES = frozenset({"brick", "grass", "gravel"})


def render(category: str, subset: str, index: int) -> np.ndarray:
    """The ``index``-th normal image of a subset, ``train`` or ``test``: uint8 (H, W, 3)."""
    scene_seed, defect_seed, camera_seed = _seeds(category, subset, "good", index)
    scene = Scene(_rng(scene_seed), _rng(defect_seed), held_out=subset == "test")
    return photograph_scene(CATEGORIES[category].draw(scene), _rng(camera_seed))


def render_pair(
    category: str, defect: str, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A part without and with a defect, photographed identically, and the defect's mask.

    Returns:
        Normal image and defective image, uint8 (H, W, 3), and mask, bool (H, W). Outside the mask
        the two images are equal to the bit.
    """
    scene_seed, defect_seed, camera_seed = _seeds(category, "test", defect, index)
    normal, defective = (
        CATEGORIES[category].draw(Scene(_rng(scene_seed), _rng(defect_seed), kind, held_out=True))
        for kind in ("good", defect)
    )
    mask = _mask(np.abs(defective - normal).max(axis=2) > CHANGED)
    defective = np.where(mask[..., None], defective, normal)
    return (
        photograph_scene(normal, _rng(camera_seed)),
        photograph_scene(defective, _rng(camera_seed)),
        mask,
    )


def _mask(changed: np.ndarray) -> np.ndarray:
    """The changed pixels as an annotator would mark them, without specks and pinholes."""
    closed = ndimage.binary_closing(np.pad(changed, 4), iterations=2)[4:-4, 4:-4] | changed
    holes, _ = ndimage.label(~closed)
    small = np.bincount(holes.ravel()) < PINHOLE
    small[0] = False
    parts, _ = ndimage.label(closed | small[holes], structure=np.ones((3, 3)))
    large = np.bincount(parts.ravel()) >= SPECK
    large[0] = False
    return large[parts]


def _seeds(category: str, subset: str, defect: str, index: int) -> list[np.random.SeedSequence]:
    """Seeds of scene, defect and camera; they depend on this image alone."""
    names = f"{category}/{subset}/{defect}".encode()
    return np.random.SeedSequence([zlib.crc32(names), index]).spawn(3)


def _rng(seed: np.random.SeedSequence) -> np.random.Generator:
    return np.random.default_rng(seed)
