"""The embedded demo data set: everything runs, and means something, with no download.

Eight categories in MVTec AD's layout: three surfaces cut from photographs that scikit-image
carries, five drawn parts. The images are made on first use, in seconds, and kept.
"""

import os
import tempfile
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from anomalib_rd.data.demo_images import CATEGORIES, render, render_pair
from anomalib_rd.data.disk_cache import cache_folder
from anomalib_rd.data.sources.layouts import MVTecAD
from anomalib_rd.data.sources.source import GOOD
from anomalib_rd.errors import UserError

VERSION = "demo-v1"
"""Name of the folder in the cache; another one whenever the images change."""

TITLE = "Demo data set of anomalib-rd"
README = """\
{title} ({version}), made by anomalib_rd.data.demo.

Layout as MVTec AD: <category>/train/good, test/good, test/<defect>, ground_truth/<defect>.
256x256 RGB. Made with fixed seeds: the same versions of numpy, scipy, pillow and
scikit-image on the same kind of processor make the same images. The masks mark the pixels
that the defect changed.

Textures (brick, grass, gravel): cut from photographs that ship with scikit-image,
skimage.data.brick, grass and gravel. All three are CC0: brick and gravel from CC0Textures
(Bricks25, Gravel04), grass from DeviantArt (linolafett, Grass 01). Test images come from a
part of the photograph that no training image shows.
Objects (button, chip, label, tablet, washer): drawn by the program, CC0.

These images show that a pipeline works and how methods differ in kind. They are no
substitute for photographs of real defects: report no benchmark on them.
"""


@dataclass(frozen=True)
class Counts:
    """How many images to make of each category, for each defect type where it says so."""

    train: int = 48
    test_good: int = 12
    per_defect: int = 8


class Demo(MVTecAD):
    """The demo data set, made on first use.

    Args:
        root: where it lies, or shall lie; None: in the user's cache folder, which the
            environment variable ``ANOMALIB_RD_CACHE`` moves.

    Raises:
        UserError: ``root`` holds something else, or cannot be written to.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        super().__init__(
            cache_folder() / VERSION if root is None else root,
            textures=(name for name, category in CATEGORIES.items() if category.texture),
        )
        ensure(self.root)


def ensure(
    root: Path, names: Iterable[str] = tuple(CATEGORIES), counts: Counts | None = None
) -> None:
    """Make the data set at ``root`` unless it is there.

    It is made in a temporary folder beside and renamed when complete, so whatever lies at
    ``root`` is complete, and of several processes at once the first to finish wins.
    """
    if _is_there(root):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
            made = Path(scratch) / root.name
            generate(made, names, counts or Counts())
            _publish(made, root)
    except OSError as error:
        raise UserError(
            f"cannot make the demo data in {root}: {error.strerror or error};"
            " set data.root or ANOMALIB_RD_CACHE to a folder with 100 MB to write in"
        ) from error


def generate(root: Path, names: Iterable[str], counts: Counts) -> None:
    """Write the images, masks and README.txt of these categories into the new folder ``root``."""
    jobs = [job for name in names for job in _jobs(root / name, name, counts)]
    # The console writes to standard error: a verb's output may be piped.
    console = Console(stderr=True)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        done = pool.map(lambda job: job(), jobs)
        for _ in track(done, "Making the demo data", len(jobs), console=console, transient=True):
            pass
    (root / "README.txt").write_text(README.format(title=TITLE, version=VERSION), encoding="utf-8")


def _jobs(folder: Path, name: str, counts: Counts) -> list[Callable[[], None]]:
    """One call for each image of a category; makes its folders."""
    jobs: list[Callable[[], None]] = []
    for subset, count in (("train", counts.train), ("test", counts.test_good)):
        images = folder / subset / GOOD
        images.mkdir(parents=True)
        jobs += [partial(_write_normal, name, subset, i, images) for i in range(count)]
    for defect in CATEGORIES[name].defects:
        images, masks = folder / "test" / defect, folder / "ground_truth" / defect
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        jobs += [
            partial(_write_defective, name, defect, i, images, masks)
            for i in range(counts.per_defect)
        ]
    return jobs


def _write_normal(name: str, subset: str, index: int, images: Path) -> None:
    _save(render(name, subset, index), images / f"{index:03d}.png")


def _write_defective(name: str, defect: str, index: int, images: Path, masks: Path) -> None:
    _, image, mask = render_pair(name, defect, index)
    _save(image, images / f"{index:03d}.png")
    _save(mask.astype(np.uint8) * 255, masks / f"{index:03d}_mask.png")


def _save(image: np.ndarray, path: Path) -> None:
    # On noisy images the default strategy takes five times as long and stores no less.
    Image.fromarray(image).save(path, compress_type=zlib.Z_RLE)


def _is_there(root: Path) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    readme = root / "README.txt"
    if not readme.is_file() or not readme.read_text(encoding="utf-8").startswith(TITLE):
        raise UserError(
            f"{root} is not the demo data set and not empty;"
            " set data.root to a new folder, or to null for the cache folder"
        )
    return True


def _publish(made: Path, root: Path) -> None:
    """Rename the finished folder; if another process was faster, its result stands."""
    try:
        made.rename(root)
    except OSError:
        if not _is_there(root):
            raise
