"""Unsupervised industrial anomaly detection by reverse knowledge distillation."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_rd.inference.load import load_run as load_run
    from anomalib_rd.inference.runtimes import load_exported as load_exported

try:
    __version__ = version("anomalib-rd")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"


_MODULES = {"load_exported": "runtimes", "load_run": "load"}


def __getattr__(name: str) -> Any:
    # Imported on first use, because they may import torch.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"anomalib_rd.inference.{_MODULES[name]}"), name)
