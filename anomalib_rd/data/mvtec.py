"""The layout of MVTec AD (Bergmann et al., CVPR 2019), as downloaded."""

from collections.abc import Iterable
from pathlib import Path

from anomalib_rd.data.layout import CategoryFolders

MVTEC_TEXTURES = frozenset({"carpet", "grid", "leather", "tile", "wood"})
MVTEC_OBJECTS = frozenset({"bottle", "cable", "capsule", "hazelnut", "metal_nut"}) | frozenset(
    {"pill", "screw", "toothbrush", "transistor", "zipper"}
)


def download_command(root: Path) -> str:
    """The command that puts MVTec AD into ``root``."""
    return f"anomalib-rd data download --root {root} --accept-license"


class MVTecAD(CategoryFolders):
    """Dataset with ``root/<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    Categories and defect types are read from disk: any dataset in this layout will do. The mask
    of ``test/<defect>/000.png`` is ``ground_truth/<defect>/000_mask.png``; it may lack.

    Args:
        root: the folder that holds the categories.
        textures: the categories that form the texture group; all others are objects.
    """

    title = "MVTec AD"

    def __init__(self, root: str | Path, textures: Iterable[str] = MVTEC_TEXTURES) -> None:
        super().__init__(root, textures)

    def how_to_get(self) -> str:
        """The command that downloads it."""
        return download_command(self.root)
