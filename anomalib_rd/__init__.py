"""Unsupervised industrial anomaly detection by reverse knowledge distillation."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_rd.inference.load import load_run as load_run

try:
    __version__ = version("anomalib-rd")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    # On first use: importing the package imports no torch.
    if name == "load_run":
        from anomalib_rd.inference.load import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
