"""The layout of MVTec AD (Bergmann et al., CVPR 2019), as downloaded."""

from collections.abc import Iterable
from pathlib import Path

from anomalib_rd.data.source import (
    GOOD,
    Sample,
    Split,
    check_category,
    list_images,
    pair_masks,
    subfolders,
)
from anomalib_rd.errors import UserError

MVTEC_TEXTURES = frozenset({"carpet", "grid", "leather", "tile", "wood"})
MVTEC_OBJECTS = frozenset({"bottle", "cable", "capsule", "hazelnut", "metal_nut"}) | frozenset(
    {"pill", "screw", "toothbrush", "transistor", "zipper"}
)


def download_command(root: Path) -> str:
    """The command that puts MVTec AD into ``root``."""
    return f"anomalib-rd data download --root {root} --accept-license"


class MVTecAD:
    """Dataset with ``root/<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    Categories and defect types are read from disk: any dataset in this layout will do. The mask
    of ``test/<defect>/000.png`` is ``ground_truth/<defect>/000_mask.png``; it may lack.

    Args:
        root: the folder that holds the categories.
        textures: the categories that form the texture group; all others are objects.
    """

    def __init__(self, root: str | Path, textures: Iterable[str] = MVTEC_TEXTURES) -> None:
        self.root = Path(root).expanduser()
        self.textures = frozenset(textures)

    def categories(self) -> list[str]:
        """Subfolders of the root with a ``train/good``, sorted.

        Raises:
            UserError: no root, or no category in it.
        """
        if not self.root.is_dir():
            raise UserError(
                f"dataset folder {self.root} does not exist; set data.root to where MVTec AD is,"
                f" or get it: {download_command(self.root)}"
            )
        names = [path.name for path in subfolders(self.root) if _is_category(path)]
        if not names:
            raise UserError(f"no category in {self.root}: {self._hint()}")
        return names

    def split(self, category: str) -> Split:
        """The samples of ``category``: defect types and files by name.

        Raises:
            UserError: no such category, no training or test images, or a mask without its image.
        """
        check_category(category, self.categories(), self.root)
        folder = self.root / category
        train = [Sample(path, category, GOOD, 0) for path in list_images(folder / "train" / GOOD)]
        if not train:
            raise UserError(
                f"no training images in {folder / 'train' / GOOD}; put normal images there"
            )
        if not (folder / "test").is_dir():
            raise UserError(f"no folder {folder / 'test'}; put test images in test/<defect type>")
        test = [
            sample
            for defect in subfolders(folder / "test")
            for sample in _test_samples(folder, category, defect.name)
        ]
        if not test:
            raise UserError(
                f"no images in the folders of {folder / 'test'};"
                " put normal ones in good, defect ones in a folder for each defect type"
            )
        _check_mask_folders(folder)
        return Split(train, test)

    def _hint(self) -> str:
        if _is_category(self.root):
            root = self.root.resolve()
            return f"it is a category itself; set data.root={root.parent} data.category={root.name}"
        for inner in subfolders(self.root):
            if any(_is_category(path) for path in subfolders(inner)):
                return f"they lie one folder deeper; set data.root={inner}"
        return (
            "expected <category>/train/good; set data.root to where MVTec AD is,"
            f" or get it: {download_command(self.root)}"
        )


def _is_category(folder: Path) -> bool:
    return (folder / "train" / GOOD).is_dir()


def _test_samples(folder: Path, category: str, defect: str) -> list[Sample]:
    images = list_images(folder / "test" / defect)
    if defect == GOOD:
        return [Sample(path, category, GOOD, 0) for path in images]
    masks = pair_masks(images, folder / "test" / defect, folder / "ground_truth" / defect)
    return [Sample(path, category, defect, 1, masks.get(path)) for path in images]


def _check_mask_folders(folder: Path) -> None:
    """Masks of a defect type that has no test folder: a renamed or forgotten folder."""
    if not (folder / "ground_truth").is_dir():
        return
    for masks in subfolders(folder / "ground_truth"):
        if masks.name != GOOD and not (folder / "test" / masks.name).is_dir():
            pair_masks([], folder / "test" / masks.name, masks)
