"""Use a trained model: load a run, score images, evaluate it on other data, export it.

    >>> from anomalib_rd import load_run
    >>> detector = load_run("runs/MODEL-CATEGORY-s0/DATE_TIME")
    >>> prediction = detector("part.png")  # a path, a PIL image, an array or a tensor
    >>> prediction.score, prediction.verdict, prediction.normalised
    >>> prediction.anomaly_map, prediction.full_map()  # (H, W) at the network's and image's size

Imports are lazy: ONNX Runtime and OpenVINO need no torch.
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
