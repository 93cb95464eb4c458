"""Images in: dataset layouts, decoding, the torch dataset, the download.

Names are resolved on first use, so that listing categories or downloading does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_rd.data.btad import BTAD as BTAD
    from anomalib_rd.data.cache import ImageCache as ImageCache
    from anomalib_rd.data.datamodule import AnomalyDataModule as AnomalyDataModule
    from anomalib_rd.data.dataset import AnomalyDataset as AnomalyDataset
    from anomalib_rd.data.demo import Demo as Demo
    from anomalib_rd.data.download import download_mvtec as download_mvtec
    from anomalib_rd.data.fingerprint import dataset_fingerprint as dataset_fingerprint
    from anomalib_rd.data.folder import Folder as Folder
    from anomalib_rd.data.images import read_image as read_image
    from anomalib_rd.data.images import read_mask as read_mask
    from anomalib_rd.data.loco import MVTecLOCO as MVTecLOCO
    from anomalib_rd.data.mpdd import MPDD as MPDD
    from anomalib_rd.data.mvtec import MVTecAD as MVTecAD
    from anomalib_rd.data.mvtec_ad_2 import MVTecAD2 as MVTecAD2
    from anomalib_rd.data.source import Sample as Sample
    from anomalib_rd.data.source import Source as Source
    from anomalib_rd.data.source import Split as Split
    from anomalib_rd.data.source import select_categories as select_categories
    from anomalib_rd.data.source import select_together as select_together
    from anomalib_rd.data.visa import VisA as VisA

_MODULES = {
    "BTAD": "btad",
    "ImageCache": "cache",
    "AnomalyDataModule": "datamodule",
    "AnomalyDataset": "dataset",
    "Demo": "demo",
    "download_mvtec": "download",
    "dataset_fingerprint": "fingerprint",
    "Folder": "folder",
    "read_image": "images",
    "read_mask": "images",
    "MPDD": "mpdd",
    "MVTecAD": "mvtec",
    "MVTecAD2": "mvtec_ad_2",
    "MVTecLOCO": "loco",
    "Sample": "source",
    "Source": "source",
    "Split": "source",
    "select_categories": "source",
    "select_together": "source",
    "VisA": "visa",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
