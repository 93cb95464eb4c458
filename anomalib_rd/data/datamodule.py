"""The images of a category, or of several for one model, for Lightning."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, SequentialSampler

from anomalib_rd.cores import THREADS, usable_cores
from anomalib_rd.data.dataset import AnomalyDataset, TileDataset, index_and_epoch
from anomalib_rd.data.image_cache import ImageCache
from anomalib_rd.data.masks import AUTO, check_mask_rule
from anomalib_rd.data.sources.source import Source, Split
from anomalib_rd.data.validation import SYNTHETIC, SyntheticValidation, hold_out, together
from anomalib_rd.data.workers import count_workers, start_method
from anomalib_rd.errors import UserError
from anomalib_rd.seeds import process_seed


class AnomalyDataModule(L.LightningDataModule):
    """Trains on the normal training images of a category and tests on its test images.

    Of several categories on all of their images together, none weighted; see ``splits``.

    Args:
        source: where the images are.
        category: one of the source's categories, or several of them for one model.
        image_size: (H, W) in pixels, multiples of 32.
        train_batch_size: images, or tiles, a step and process; the last short batch is kept.
        test_batch_size: images a step; changes no result.
        num_workers: processes that read images, on this machine; the processes of a distributed
            run share them. None: each of these leaves a core of its share for the training and
            takes at most 8, or as many as there is shared memory for.
        transform: of the uint8 training images; its random numbers depend on ``seed``, the epoch
            and the image.
        cache: of decoded images, shared between runs; None decodes anew.
        seed: of the order of the training images, and of what is held out.
        val: ``"synthetic"`` holds normal training images out for validation and gives half of
            them synthetic defects; None trains on all.
        val_share: of each category's normal training images, to hold out.
        test_curve: whether the test images are looked at between epochs.
        mask_rule: which values of a mask are defect, see `anomalib_rd.data.masks`.
        tiles: rows and columns of the tiles to train on in each image's place; None: whole images.

    Attributes:
        splits: each category's, as the source has it, in the order asked for.
        source: where the images are.
        split: all of them, category by category; what is held out is still in ``split.train``.
        train_set, val_set, test_set: what is read; ``val_set`` is None without ``val``.
        train_items: what training batches are made of: ``train_set``, or its tiles.
        train_by_index: whether training batches are the items' indices alone, for a trainer
            that has their features already.

    Raises:
        UserError: a size that the networks can't take, an unknown ``val`` or too few images for
            it, or what the source finds wrong.
    """

    def __init__(
        self,
        source: Source,
        category: str | Sequence[str],
        image_size: Sequence[int] = (256, 256),
        train_batch_size: int = 16,
        test_batch_size: int = 16,
        num_workers: int | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
        cache: ImageCache | None = None,
        val: str | None = None,
        val_share: float = 0.2,
        test_curve: bool = False,
        tiles: Sequence[tuple[slice, slice]] | None = None,
        mask_rule: str = AUTO,
    ) -> None:
        super().__init__()
        sides = tuple(image_size or ())
        if len(sides) != 2 or any(
            not isinstance(side, int) or side % 32 or side < 64 for side in sides
        ):
            raise UserError(
                f"data.image_size={list(sides)}: give height and width, both multiples of 32, from "
                "64 on, such as [256, 256]"
            )
        if num_workers is not None and (not isinstance(num_workers, int) or num_workers < 0):
            raise UserError(f"data.num_workers={num_workers}: give a number from 0 on, or null")
        height, width = sides
        for key, size in (("train", train_batch_size), ("test", test_batch_size)):
            if not isinstance(size, int) or size < 1:
                raise UserError(f"data.{key}_batch_size={size}: must be at least 1")
        if val not in (None, SYNTHETIC):
            raise UserError(f"validation.kind={val}: choose {SYNTHETIC}, or null for no validation")
        check_mask_rule(mask_rule)
        self.transform = transform
        self.image_size, self.seed = (height, width), seed
        self.train_batch_size, self.test_batch_size = train_batch_size, test_batch_size
        item_bytes = 4 * height * width  # three colours and the mask
        self.batch_bytes = max(train_batch_size, test_batch_size) * item_bytes
        self.num_workers = num_workers
        self.fitting_workers: int | None = None
        if num_workers is not None:
            count_workers(num_workers, num_workers, self.batch_bytes)
        names = [category] if isinstance(category, str) else category
        self.splits = {name: source.split(name) for name in names}
        self.split = Split(
            train=[sample for split in self.splits.values() for sample in split.train],
            test=[sample for split in self.splits.values() for sample in split.test],
        )
        self.source, self.root, self.textures = source, source.root, source.textures
        train = self.split.train
        self.val_set: SyntheticValidation | None = None
        if val is not None:
            held_out = together(
                hold_out(split.train, self.root, val_share, seed) for split in self.splits.values()
            )
            train = held_out.train
            self.val_set = SyntheticValidation(held_out, self.root, self.image_size, seed, cache)
        self.train_set = AnomalyDataset(
            train, self.image_size, transform, cache, masks=False, seed=seed
        )
        self.train_items: AnomalyDataset | TileDataset = (
            TileDataset(self.train_set, tiles) if tiles else self.train_set
        )
        self.test_set = AnomalyDataset(
            self.split.test, self.image_size, cache=cache, mask_rule=mask_rule
        )
        self.test_curve, self.train_by_index = test_curve, False

    @property
    def categories(self) -> list[str]:
        """The names, in the order of the images."""
        return list(self.splits)

    def train_dataloader(self) -> DataLoader:
        """All training images or tiles, in an order drawn anew each epoch from the seed alone."""
        world, rank = self._processes()
        sampler = WithEpoch(
            self.train_items, num_replicas=world, rank=rank, shuffle=True, seed=self.seed
        )
        if self.trainer is not None:
            # Of a resumed run the loader's workers ask for batches before Lightning says so.
            current: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(current.processed)
        if self.train_by_index:
            indices = OnlyIndices(len(self.train_items))
            return self._loader(indices, self.train_batch_size, sampler, num_workers=0)
        return self._loader(self.train_items, self.train_batch_size, sampler)

    def ordered_train_dataloader(self) -> DataLoader:
        """All training images or tiles in the data set's order, the same in every process."""
        return self.ordered_dataloader(self.train_items, self.train_batch_size)

    def ordered_dataloader(
        self, images: AnomalyDataset | TileDataset, batch_size: int | None = None
    ) -> DataLoader:
        """Images in their data set's order, by default in the batches of the test."""
        return self._loader(images, batch_size or self.test_batch_size, SequentialSampler(images))

    def test_dataloader(self) -> DataLoader:
        """Every test image once, whatever the number of processes."""
        return self._each_once(self.test_set)

    def val_dataloader(self) -> dict[str, DataLoader]:
        """What is looked at between epochs, by the stage that its metrics are logged under.

        ``val``: the held-out images, every one once; ``test_curve``: the test images, for the
        opt-in curve alone: no choice is made on it.
        """
        looks = {} if self.val_set is None else {"val": self._each_once(self.val_set)}
        return looks | ({"test_curve": self.test_dataloader()} if self.test_curve else {})

    def _each_once(self, dataset: AnomalyDataset) -> DataLoader:
        world, rank = self._processes()
        if world > len(dataset):
            raise UserError(
                f"trainer.devices: {world} processes can't share {len(dataset)} images; take fewer"
            )
        return self._loader(dataset, self.test_batch_size, EveryNth(len(dataset), rank, world))

    def _loader(
        self, dataset: Dataset, batch_size: int, sampler: Sampler, num_workers: int | None = None
    ) -> DataLoader:
        workers = self._own_workers() if num_workers is None else num_workers
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            multiprocessing_context=start_method() if workers else None,
            persistent_workers=workers > 0,
            pin_memory=self._on_cuda(),
            # A loader of its own: reading images must not move the training's random numbers.
            generator=torch.Generator().manual_seed(process_seed(self.seed, self._processes()[1])),
        )

    def _own_workers(self) -> int:
        """This process's part of the workers, at least one where any are asked for."""
        processes = 1 if self.trainer is None else self.trainer.num_devices
        if self.num_workers is not None:
            return math.ceil(self.num_workers / processes)
        if self.fitting_workers is None:  # looked at once: all loaders have as many
            each = min(8, max(0, usable_cores() // processes - 1))
            # Jobs that share the machine are given threads, by launchers too: as many read images.
            given = os.environ.get(THREADS, "")
            each = min(each, max(1, int(given))) if given.isdecimal() else each
            self.fitting_workers = count_workers(None, processes * each, self.batch_bytes)
        return self.fitting_workers // processes

    def _on_cuda(self) -> bool:
        """Whether the run is on a GPU; pinning memory for a run on the CPU would only cost."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _processes(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank


class WithEpoch(DistributedSampler[Any]):
    """Draws ``(index, epoch)``: what is random about an image depends on the epoch."""

    def __iter__(self) -> Iterator[Any]:
        return ((index, self.epoch) for index in super().__iter__())


class OnlyIndices(Dataset[dict[str, int]]):
    """Items ``{"index": i}`` for a trainer that has the features already."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, int]:
        return {"index": index_and_epoch(index)[0]}


class EveryNth(Sampler[int]):
    """Items rank, rank + world, ...: unlike torch's DistributedSampler it repeats none."""

    def __init__(self, length: int, rank: int, world: int) -> None:
        self.indices = range(rank, length, world)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
