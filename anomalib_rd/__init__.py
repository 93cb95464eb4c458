"""Unsupervised industrial anomaly detection by reverse knowledge distillation."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("anomalib-rd")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
