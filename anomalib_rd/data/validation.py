"""Validation without the test set: held-out normal images, half of them given synthetic defects."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from anomalib_rd.data.dataset import AnomalyDataset, index_and_epoch
from anomalib_rd.data.image_cache import ImageCache
from anomalib_rd.data.sources.source import Sample
from anomalib_rd.data.synthetic import add_defect, draw, generator
from anomalib_rd.errors import UserError

SYNTHETIC = "synthetic"
FEWEST = 4  # two normal images and two with defects: with one of a kind a metric says nothing


@dataclass(frozen=True)
class HeldOut:
    """Normal images parted: to train on, to judge as they are, to judge with synthetic defects."""

    train: list[Sample]
    normal: list[Sample]
    defect: list[Sample]


def hold_out(samples: Sequence[Sample], root: Path, share: float, seed: int) -> HeldOut:
    """Take ``share`` of the normal images out of the training, at least `FEWEST`.

    Which ones depends on ``seed`` and their paths below ``root`` alone. The order is kept.

    Raises:
        UserError: a share that is none, or fewer images left to train on than held out.
    """
    if not 0 < share <= 0.5:
        raise UserError(
            f"validation.fraction={share}: must be more than 0 and at most 0.5, a share of the"
            " normal training images, such as 0.2"
        )
    count = max(FEWEST, round(share * len(samples)))
    if 2 * count > len(samples):
        of = f" of '{samples[0].category}'" if samples else ""
        raise UserError(
            f"validation.kind={SYNTHETIC}: {len(samples)} normal training images in {root}{of} are"
            f" too few to hold out {count}; add some (at least {2 * FEWEST}), or set"
            " validation.kind=null"
        )
    drawn = sorted(range(len(samples)), key=lambda i: draw(seed, path_in_dataset(root, samples[i])))
    normal, defect = set(drawn[: count // 2]), set(drawn[count // 2 : count])
    return HeldOut(
        train=[s for i, s in enumerate(samples) if i not in normal | defect],
        normal=[s for i, s in enumerate(samples) if i in normal],
        defect=[s for i, s in enumerate(samples) if i in defect],
    )


def together(parts: Iterable[HeldOut]) -> HeldOut:
    """What is held out of several categories; each has given its own share."""
    parts = list(parts)
    return HeldOut(
        train=[sample for part in parts for sample in part.train],
        normal=[sample for part in parts for sample in part.normal],
        defect=[sample for part in parts for sample in part.defect],
    )


class SyntheticValidation(AnomalyDataset):
    """Items as of `AnomalyDataset`: the normal images, then those with defects and masks.

    An image has the same defect in any process, order and epoch.

    Args:
        held_out: the samples.
        root: the data's root; the defects depend on the paths below it.
        image_size: (H, W); the defects are made at this size.
        seed: of the defects.
        cache: of decoded images, without defects.
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
        self._made: dict[int, dict[str, Any]] = {}

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """Read one sample, and give it its defect the first time.

        Raises:
            UserError: an unreadable file.
        """
        index, _ = index_and_epoch(index)
        sample = self.samples[index]
        if not sample.label:
            return super().__getitem__(index)
        if index not in self._made:
            item = super().__getitem__(index)
            pixels = item["image"].permute(1, 2, 0).numpy()
            image, mask = add_defect(
                pixels, generator(self.seed, path_in_dataset(self.root, sample))
            )
            made = torch.from_numpy(image).permute(2, 0, 1).contiguous()
            self._made[index] = {**item, "image": made, "mask": torch.from_numpy(mask)}
        return self._made[index]


def path_in_dataset(root: Path, sample: Sample) -> str:
    """The sample's path relative to the data's root, the same on every machine."""
    return PurePath(os.path.relpath(sample.path, root)).as_posix()
