"""What the metrics accept, and why a metric may be undefined for it."""

from __future__ import annotations

import torch
from torch import Tensor


def check_images(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and labels, both (N,), detached, labels as bool; ValueError on a misfit."""
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(
            "scores and labels must both have shape (N,), "
            f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    return _without_nan(scores, "image scores"), _as_bool(labels, "labels")


def check_pixels(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps and masks, both (N, H, W), detached, masks as bool; ValueError on a misfit."""
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(
            "maps and masks must both have shape (N, H, W), "
            f"got {tuple(maps.shape)} and {tuple(masks.shape)}"
        )
    return _without_nan(maps, "pixel scores"), _as_bool(masks, "masks")


def why_undefined(truth: Tensor) -> str | None:
    """Say why metrics against labels (N,) or masks (N, H, W) are NaN; None if they are defined."""
    defects = int(truth.bool().sum())
    why = _why_images_undefined if truth.ndim == 1 else why_pixels_undefined
    return why(len(truth), defects, truth.numel() - defects)


def why_pixels_undefined(images: int, defects: int, normals: int) -> str | None:
    """Say why pixel metrics are NaN, from the counts of images and of pixels of either kind."""
    if images == 0:
        return "there are no test images"
    if defects == normals == 0:
        return "the masks have no pixels"
    if defects == 0:
        return f"none of the {images} masks marks a defect"
    if normals == 0:
        return f"the {images} masks mark every pixel: there is no normal one to tell apart"
    return None


def _why_images_undefined(images: int, defects: int, normals: int) -> str | None:
    if images == 0:
        return "there are no test images"
    if defects == 0:
        return f"all {images} images are normal: there is no defect to find"
    if normals == 0:
        return f"all {images} images are defective: there is no normal one to tell apart"
    return None


def _without_nan(values: Tensor, what: str) -> Tensor:
    values = values.detach()
    if values.numel() and bool(values.min().isnan()):  # the minimum is NaN if any value is
        bad = int(values.isnan().sum())
        raise ValueError(f"{bad} of {values.numel()} {what} are NaN: they cannot be ranked")
    return values


def _as_bool(truth: Tensor, name: str) -> Tensor:
    if truth.dtype == torch.bool:
        return truth
    if not bool(((truth == 0) | (truth == 1)).all()):
        raise ValueError(f"{name} must be 0 or 1 (or bool), got other values")
    return truth.bool()
