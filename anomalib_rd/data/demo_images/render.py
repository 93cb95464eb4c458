"""The categories of the demo data, and the making of one image of them."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from anomalib_rd.data.demo_images.button import button
from anomalib_rd.data.demo_images.camera import expose
from anomalib_rd.data.demo_images.chip import chip
from anomalib_rd.data.demo_images.label import label
from anomalib_rd.data.demo_images.shot import Shot
from anomalib_rd.data.demo_images.tablet import tablet
from anomalib_rd.data.demo_images.textures import brick, grass, gravel
from anomalib_rd.data.demo_images.washer import washer

CHANGED = 2.5 / 255
"""The least difference of a colour, before the camera, that counts as a defect."""
SPECK, PINHOLE = 8, 60
"""Smaller specks of change, in pixels, are undone, smaller gaps within it count as changed."""


@dataclass(frozen=True)
class Category:
    """A subject and the defects it knows."""

    draw: Callable[[Shot], np.ndarray]
    defects: tuple[str, ...]
    texture: bool = False


CATEGORIES: dict[str, Category] = {
    "brick": Category(brick, ("crack", "spalled", "stain", "worn"), texture=True),
    "button": Category(button, ("closed_hole", "dent", "scratch", "shifted_hole")),
    "chip": Category(chip, ("bent_pin", "misprint", "missing_pin", "scratch")),
    "grass": Category(grass, ("bare", "dry", "trodden", "wire"), texture=True),
    "gravel": Category(gravel, ("fines", "leaf", "oil", "overgrown"), texture=True),
    "label": Category(label, ("faded", "misprint", "smudge", "torn")),
    "tablet": Category(tablet, ("chipped", "crack", "imprint", "spot")),
    "washer": Category(washer, ("notch", "off_centre", "rust", "scratch")),
}


def render(category: str, subset: str, index: int) -> np.ndarray:
    """The ``index``-th normal image of a subset, ``train`` or ``test``: uint8 (H, W, 3)."""
    scene, fault, camera = _seeds(category, subset, "good", index)
    shot = Shot(_rng(scene), _rng(fault), "good", held_out=subset == "test")
    return expose(CATEGORIES[category].draw(shot), _rng(camera))


def render_pair(
    category: str, defect: str, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A part without and with a defect, photographed alike, and the mask of the defect.

    Returns:
        Normal image and defective image, uint8 (H, W, 3), and mask, bool (H, W). Outside
        the mask the two images are the same to the bit.
    """
    scene, fault, camera = _seeds(category, "test", defect, index)
    draw = CATEGORIES[category].draw
    normal = draw(Shot(_rng(scene), _rng(fault), "good", held_out=True))
    broken = draw(Shot(_rng(scene), _rng(fault), defect, held_out=True))
    mask = _mask(np.abs(broken - normal).max(axis=2) > CHANGED)
    broken = np.where(mask[..., None], broken, normal)
    return expose(normal, _rng(camera)), expose(broken, _rng(camera)), mask


def _mask(changed: np.ndarray) -> np.ndarray:
    """The changed pixels as one would mark them: no specks, no pinholes."""
    closed = ndimage.binary_closing(np.pad(changed, 4), iterations=2)[4:-4, 4:-4] | changed
    holes, _ = ndimage.label(~closed)
    small = np.bincount(holes.ravel()) < PINHOLE
    small[0] = False
    parts, _ = ndimage.label(closed | small[holes], structure=np.ones((3, 3)))
    large = np.bincount(parts.ravel()) >= SPECK
    large[0] = False
    return large[parts]


def _seeds(category: str, subset: str, defect: str, index: int) -> list[np.random.SeedSequence]:
    """Seeds of scene, fault and camera: each image has its own, whatever else is made."""
    names = f"{category}/{subset}/{defect}".encode()
    return np.random.SeedSequence([zlib.crc32(names), index]).spawn(3)


def _rng(seed: np.random.SeedSequence) -> np.random.Generator:
    return np.random.default_rng(seed)
