"""Writers of small data sets."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, size: tuple[int, int] = (12, 8), value: int | None = None) -> Path:
    """Write an RGB image of (width, height), random or of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    seed = sum(str(path.name).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, shape) if value is None else value
    Image.fromarray(np.broadcast_to(pixels, shape).astype(np.uint8)).save(path)
    return path


def write_mask(path: Path, size: tuple[int, int] = (12, 8), white: int = 255) -> Path:
    """Write a grey mask whose left half is defect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, : size[0] // 2] = white
    Image.fromarray(pixels).save(path)
    return path


def mvtec_category(folder: Path, train: int = 3, good: int = 2, defects: int = 2) -> Path:
    """Write a category in MVTec AD's layout, with the defect types crack and hole."""
    for i in range(train):
        write_image(folder / "train" / "good" / f"{i:03}.png")
    for i in range(good):
        write_image(folder / "test" / "good" / f"{i:03}.png")
    for defect in ("crack", "hole"):
        for i in range(defects):
            write_image(folder / "test" / defect / f"{i:03}.png")
            write_mask(folder / "ground_truth" / defect / f"{i:03}_mask.png")
    return folder
