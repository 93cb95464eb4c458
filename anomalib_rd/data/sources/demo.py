"""The built-in demo data set, so that everything runs without a download.

Eight categories in MVTec AD's layout: three surfaces cut from photographs that scikit-image
includes, and five drawn parts. The images are generated on first use, within seconds, and cached.
"""

import os
import tempfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from anomalib_rd.data.demo_images import CATEGORIES, TEXTURES, render, render_pair
from anomalib_rd.data.disk_cache import cache_folder
from anomalib_rd.data.sources.layouts import CategoryFolders, Layout
from anomalib_rd.data.sources.source import GOOD
from anomalib_rd.errors import UserError

VERSION = "demo-v1"
"""Name of the cache folder; it changes whenever the images do."""

TITLE = "Demo data set of anomalib-rd"
README = f"""\
{TITLE} ({VERSION}), made by anomalib_rd.data.sources.demo.

Layout of MVTec AD: <category>/train/good, test/good, test/<defect>, ground_truth/<defect>.
256x256 RGB. Made with fixed seeds: the same versions of numpy, scipy, pillow and
scikit-image on the same kind of processor make the same images. The masks mark the pixels
that the defect changed.

Textures (brick, grass, gravel): cut from photographs that ship with scikit-image,
skimage.data.brick, grass and gravel. All three are CC0: brick and gravel from CC0Textures
(Bricks25, Gravel04), grass from DeviantArt (linolafett, Grass 01). Test images come from a
part of the photograph that no training image shows.
Objects (button, chip, label, tablet, washer): drawn by the program, CC0.

These images show that a pipeline works and how methods differ in kind. They do not replace
photographs of real defects: do not report benchmarks on them.
"""


@dataclass(frozen=True)
class DemoSize:
    """Numbers of training and normal test images per category, and of images per defect type."""

    train: int = 48
    test_good: int = 12
    per_defect: int = 8


class Demo(CategoryFolders):
    """The demo data set, generated on first use.

    Args:
        root: its folder; None: in the cache folder of the user, or in the environment variable
            ``ANOMALIB_RD_CACHE``.

    Raises:
        UserError: ``root`` contains other files, or is not writable.
    """

    layout = Layout(title="the demo data set", url="", textures=TEXTURES)

    def __init__(self, root: str | Path | None = None) -> None:
        super().__init__(cache_folder() / VERSION if root is None else root)
        ensure_demo(self.root)


def ensure_demo(
    root: Path, names: Iterable[str] = tuple(CATEGORIES), size: DemoSize | None = None
) -> None:
    """Generate the data set at ``root`` unless it exists.

    It is written to a temporary folder and renamed when complete, so ``root`` is always complete;
    of several processes, the first to finish wins.
    """
    if _exists(root):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
            made = Path(scratch) / root.name
            _generate(made, names, size or DemoSize())
            try:
                made.rename(root)
            except OSError:
                if not _exists(root):  # else another process was faster
                    raise
    except OSError as error:
        raise UserError(
            f"cannot make the demo data in {root}: {error.strerror or error};"
            " set data.root or ANOMALIB_RD_CACHE to a writable folder with 100 MB of space"
        ) from error


def _exists(root: Path) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    readme = root / "README.txt"
    if not readme.is_file() or not readme.read_text(encoding="utf-8").startswith(TITLE):
        raise UserError(
            f"{root} is not the demo data set and not empty;"
            " set data.root to a new folder, or to null for the cache folder"
        )
    return True


def _generate(root: Path, names: Iterable[str], size: DemoSize) -> None:
    """Write images, masks and README.txt of these categories into the new folder ``root``."""
    jobs = [
        (root / name, subset, defect, index)
        for name in names
        for subset, defect, count in (
            ("train", GOOD, size.train),
            ("test", GOOD, size.test_good),
            *(("test", defect, size.per_defect) for defect in CATEGORIES[name].defects),
        )
        for index in range(count)
    ]
    # On standard error, because a command's output may be piped.
    console = Console(stderr=True)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        done = pool.map(lambda job: _write(*job), jobs)
        for _ in track(done, "Making the demo data", len(jobs), console=console, transient=True):
            pass
    (root / "README.txt").write_text(README, encoding="utf-8")


def _write(folder: Path, subset: str, defect: str, index: int) -> None:
    """Write an image, and its mask if it is defective."""
    if defect == GOOD:
        image = render(folder.name, subset, index)
    else:
        _, image, mask = render_pair(folder.name, defect, index)
        levels = mask.astype(np.uint8) * 255
        _save(levels, folder / "ground_truth" / defect / f"{index:03d}_mask.png")
    _save(image, folder / subset / defect / f"{index:03d}.png")


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # On noisy images the default strategy takes five times as long and saves no bytes.
    Image.fromarray(image).save(path, compress_type=zlib.Z_RLE)
