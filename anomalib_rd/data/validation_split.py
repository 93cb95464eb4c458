"""Validation without the test set: held-out normal images, half of them with synthetic defects."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from anomalib_rd.data.dataset import AnomalyDataset, index_and_epoch
from anomalib_rd.data.image_cache import ImageCache
from anomalib_rd.data.sources.source import Sample
from anomalib_rd.data.synthetic import add_defect, hash_fraction, random_generator
from anomalib_rd.errors import UserError

SYNTHETIC = "synthetic"
MIN_HELD_OUT = 4  # two normal images and two with defects; with fewer, metrics are undefined


@dataclass(frozen=True)
class HeldOut:
    """Normal images divided into training, validation, and validation with synthetic defects."""

    train: list[Sample]
    normal: list[Sample]
    defect: list[Sample]


def hold_out(samples: Sequence[Sample], root: Path, share: float, seed: int) -> HeldOut:
    """Hold out ``share`` of the normal images, at least `MIN_HELD_OUT`, in the given order.

    The selection depends on ``seed`` and the paths below ``root`` alone.

    Raises:
        UserError: an invalid share, or fewer images remain for training than are held out.
    """
    if not 0 < share <= 0.5:
        raise UserError(
            f"validation.fraction={share}: must be more than 0 and at most 0.5, a fraction of the"
            " normal training images, such as 0.2"
        )
    count = max(MIN_HELD_OUT, round(share * len(samples)))
    if 2 * count > len(samples):
        category = f" of '{samples[0].category}'" if samples else ""
        raise UserError(
            f"validation.kind={SYNTHETIC}: {len(samples)} normal training images in {root}"
            f"{category} are too few to hold out {count}; add some (at least {2 * MIN_HELD_OUT}),"
            " or set validation.kind=null"
        )
    order = sorted(
        range(len(samples)), key=lambda i: hash_fraction(seed, path_in_dataset(root, samples[i]))
    )
    normal, defect = set(order[: count // 2]), set(order[count // 2 : count])
    return HeldOut(
        train=[sample for i, sample in enumerate(samples) if i not in normal | defect],
        normal=[sample for i, sample in enumerate(samples) if i in normal],
        defect=[sample for i, sample in enumerate(samples) if i in defect],
    )


def merge_held_out(parts: Iterable[HeldOut]) -> HeldOut:
    """The held-out images of several categories together."""
    parts = list(parts)
    return HeldOut(
        train=[sample for part in parts for sample in part.train],
        normal=[sample for part in parts for sample in part.normal],
        defect=[sample for part in parts for sample in part.defect],
    )


class SyntheticValidation(AnomalyDataset):
    """Items of `AnomalyDataset`: the normal images, then those with defects and masks.

    A defect is drawn at ``image_size`` (H, W) and depends only on ``seed`` and the image's path
    below ``root``, not on process, order or epoch. The cache stores images without defects.
    """

    def __init__(
        self,
        held_out: HeldOut,
        root: Path,
        image_size: Sequence[int],
        seed: int,
        cache: ImageCache | None = None,
    ) -> None:
        defect = [replace(sample, defect=SYNTHETIC, label=1) for sample in held_out.defect]
        super().__init__([*held_out.normal, *defect], image_size, cache=cache)
        self.root, self.seed = root, seed
        self._defect_items: dict[int, dict[str, Any]] = {}

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """Read one sample; its defect is drawn once and kept in memory."""
        index, _ = index_and_epoch(index)
        sample = self.samples[index]
        if not sample.label:
            return super().__getitem__(index)
        if index not in self._defect_items:
            item = super().__getitem__(index)
            pixels = item["image"].permute(1, 2, 0).numpy()
            rng = random_generator(self.seed, path_in_dataset(self.root, sample))
            image, mask = add_defect(pixels, rng)
            drawn = torch.from_numpy(image).permute(2, 0, 1).contiguous()
            self._defect_items[index] = {**item, "image": drawn, "mask": torch.from_numpy(mask)}
        return self._defect_items[index]


def path_in_dataset(root: Path, sample: Sample) -> str:
    """The sample's path relative to the data's root, the same on every machine."""
    return PurePath(os.path.relpath(sample.path, root)).as_posix()
