"""Data sets on disk, image decoding, the torch dataset and the Lightning data module.

Names are resolved on first use, so that listing categories or downloading does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anomalib_rd.data.sources.layouts import LAYOUTS

if TYPE_CHECKING:
    from anomalib_rd.data.datamodule import AnomalyDataModule as AnomalyDataModule
    from anomalib_rd.data.dataset import AnomalyDataset as AnomalyDataset
    from anomalib_rd.data.download import download_mvtec as download_mvtec
    from anomalib_rd.data.fingerprint import dataset_fingerprint as dataset_fingerprint
    from anomalib_rd.data.image_cache import ImageCache as ImageCache
    from anomalib_rd.data.images import read_image as read_image
    from anomalib_rd.data.images import read_mask as read_mask
    from anomalib_rd.data.sources.demo import Demo as Demo
    from anomalib_rd.data.sources.folder import Folder as Folder
    from anomalib_rd.data.sources.layouts import VisA as VisA
    from anomalib_rd.data.sources.source import Sample as Sample
    from anomalib_rd.data.sources.source import Source as Source
    from anomalib_rd.data.sources.source import Split as Split
    from anomalib_rd.data.sources.source import select_categories as select_categories

_MODULES = {
    "AnomalyDataModule": "datamodule",
    "AnomalyDataset": "dataset",
    "download_mvtec": "download",
    "dataset_fingerprint": "fingerprint",
    "ImageCache": "image_cache",
    "read_image": "images",
    "read_mask": "images",
    "Demo": "sources.demo",
    "Folder": "sources.folder",
    "VisA": "sources.layouts",
    **dict.fromkeys(LAYOUTS, "sources.layouts"),
    **dict.fromkeys(("Sample", "Source", "Split", "select_categories"), "sources.source"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
