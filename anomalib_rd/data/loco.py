"""The layout of MVTec LOCO AD (Bergmann et al., IJCV 2022), as downloaded."""

from collections.abc import Iterable
from pathlib import Path

from anomalib_rd.data.layout import WithValidation
from anomalib_rd.data.source import pair_masks
from anomalib_rd.data.walk import subfolders


class MVTecLOCO(WithValidation):
    """MVTec LOCO AD: five categories with logical and structural anomalies.

    ``root/<category>/{train/good, validation/good, test/{good, logical_anomalies,
    structural_anomalies}}``. An image has a folder of masks, one for each defect:
    ``ground_truth/<kind>/000/{000.png, 001.png, ...}``. They are united; a mask's value names the
    type of defect, so all but 0 is defect. The authors' own metric, sPRO, weighs regions by that
    type and is not computed here.

    The layout is that of https://www.mvtec.com/company/research/datasets/mvtec-loco, as anomalib's
    ``MVTecLOCODataset`` reads it.
    """

    title = "MVTec LOCO AD"
    page = "https://www.mvtec.com/company/research/datasets/mvtec-loco"

    def pair(self, images: Iterable[Path], folder: Path, masks: Path) -> dict[Path, Path]:
        """The folders of masks of the images in ``folder``.

        Raises:
            UserError: a folder of masks without its image.
        """
        return pair_masks(images, folder, masks, subfolders(masks) if masks.is_dir() else [])
