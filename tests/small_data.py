"""Small data sets on disk, with square defects."""

import numpy as np
from PIL import Image


def draw(rng, size, defect=False):
    """A striped texture and its mask; a defect is a bright square."""
    rows = np.arange(size)[:, None]
    stripes = 110 + 40 * np.sin((rows + rng.integers(8)) / 3) + rng.normal(0, 6, (size, size))
    image = np.repeat(stripes[..., None], 3, axis=2)
    mask = np.zeros((size, size), dtype=np.uint8)
    if defect:
        top, left = rng.integers(4, size - 20, 2)
        image[top : top + 14, left : left + 14] += 90
        mask[top : top + 14, left : left + 14] = 255
    return np.clip(image, 0, 255).astype(np.uint8), mask


def make_mvtec(root, categories=("cloth", "cable"), size=64, train=6, good=3, bad=4, masks=True):
    """Write small images in MVTec AD's layout."""
    for number, category in enumerate(categories):
        rng = np.random.default_rng(number)
        plan = [("train", "good", train), ("test", "good", good), ("test", "square", bad)]
        for subset, defect, count in plan:
            images = root / category / subset / defect
            mask_folder = root / category / "ground_truth" / defect
            images.mkdir(parents=True)
            for i in range(count):
                image, mask = draw(rng, size, defect=defect != "good")
                Image.fromarray(image).save(images / f"{i:03}.png")
                if defect != "good" and masks:
                    mask_folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(mask_folder / f"{i:03}_mask.png")
    return root
