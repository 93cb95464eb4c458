"""A trained model put to use: load a run, judge images, evaluate it on other data.

    >>> from anomalib_rd import load_run
    >>> detector = load_run("runs/MODEL-CATEGORY-s0/DATE_TIME")
    >>> found = detector("part.png")  # a path, a PIL image, an array or a tensor
    >>> found.score, found.verdict, found.normalised
    >>> found.anomaly_map, found.full_map()  # (H, W) at the network's size, and at the image's

Names are resolved on first use: to judge images by another runtime needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_rd.inference.detector import Detector as Detector
    from anomalib_rd.inference.detector import Prediction as Prediction
    from anomalib_rd.inference.load import load_run as load_run
    from anomalib_rd.inference.runtimes import load_exported as load_exported

_MODULES = {
    "Detector": "detector",
    "load_exported": "runtimes",
    "load_run": "load",
    "Prediction": "detector",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
