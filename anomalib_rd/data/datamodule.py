"""The Lightning data module of one category, or of several that share a model."""

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
from anomalib_rd.data.mask_rules import AUTO, check_mask_rule
from anomalib_rd.data.sources.source import Source, Split
from anomalib_rd.data.validation_split import (
    SYNTHETIC,
    SyntheticValidation,
    hold_out,
    merge_held_out,
)
from anomalib_rd.data.workers import count_workers, start_method
from anomalib_rd.errors import UserError
from anomalib_rd.process_seed import process_seed


class AnomalyDataModule(L.LightningDataModule):
    """Trains on a category's normal training images and tests on its test images.

    Several categories are pooled into one data set, without weights.

    Args:
        source: the data set on disk.
        category: one of the source's categories, or several that share a model.
        image_size: (H, W) in pixels, multiples of 32.
        train_batch_size: images, or tiles, per step and process; a last, smaller batch is used too.
        test_batch_size: images per step; does not affect results.
        num_workers: data workers on this machine, divided among the processes of a distributed
            run. None: each process starts one fewer than its share of the cores, at most 8, or as
            many as shared memory allows.
        transform: applied to the uint8 training images; its random numbers depend on ``seed``,
            epoch and image.
        seed: seed of the order of the training images and of the selection of held-out images.
        cache: cache of decoded images, shared between runs; None decodes each time.
        val: ``"synthetic"`` holds out normal training images for validation and adds synthetic
            defects to half of them; None trains on all.
        val_share: fraction of each category's normal training images to hold out.
        test_curve: whether to evaluate on the test images after each epoch.
        tiles: rows and columns of the tiles to train on instead of images; None: images.
        mask_rule: how masks are read, one of `masks.MASK_RULES`.

    Attributes:
        splits: category -> its split, in the order of ``category``.
        source: the data set on disk.
        split: all categories together; held-out images are still in ``split.train``.
        train_set, val_set, test_set: the datasets; ``val_set`` is None without ``val``.
        train_items: the dataset of the training batches: ``train_set``, or its tiles.
        train_by_index: whether training batches contain only indices, to train on cached features.

    Raises:
        UserError: an invalid option, too few images for ``val``, or an error of the source.
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
                f"data.image_size={list(sides)}: give height and width, multiples of 32 of at least"
                " 64, such as [256, 256]"
            )
        if num_workers is not None and (not isinstance(num_workers, int) or num_workers < 0):
            raise UserError(f"data.num_workers={num_workers}: give 0 or more, or null")
        for key, size in (("train", train_batch_size), ("test", test_batch_size)):
            if not isinstance(size, int) or size < 1:
                raise UserError(f"data.{key}_batch_size={size}: must be at least 1")
        if val not in (None, SYNTHETIC):
            raise UserError(f"validation.kind={val}: choose {SYNTHETIC}, or null for no validation")
        check_mask_rule(mask_rule)
        self.transform, self.seed = transform, seed
        self.image_size = height, width = sides[0], sides[1]
        self.train_batch_size, self.test_batch_size = train_batch_size, test_batch_size
        self.test_curve, self.train_by_index = test_curve, False
        image_bytes = 4 * height * width  # three colours and the mask
        self.batch_bytes = max(train_batch_size, test_batch_size) * image_bytes
        self.num_workers = num_workers
        self.default_workers: int | None = None
        if num_workers is not None:
            count_workers(num_workers, num_workers, self.batch_bytes)
        self.source, self.root, self.textures = source, source.root, source.textures
        names = [category] if isinstance(category, str) else category
        self.splits = {name: source.split(name) for name in names}
        self.split = Split(
            train=[sample for split in self.splits.values() for sample in split.train],
            test=[sample for split in self.splits.values() for sample in split.test],
        )
        train = self.split.train
        self.val_set: SyntheticValidation | None = None
        if val is not None:
            held_out = merge_held_out(
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

    @property
    def categories(self) -> list[str]:
        """Names of the categories, in the order of their images."""
        return list(self.splits)

    def train_dataloader(self) -> DataLoader:
        """All training images or tiles, in an order that depends on seed and epoch alone."""
        world_size, rank = self._world()
        sampler = EpochSampler(
            self.train_items, num_replicas=world_size, rank=rank, shuffle=True, seed=self.seed
        )
        if self.trainer is not None:
            # A resumed run's workers request batches before Lightning sets the epoch.
            current: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(current.processed)
        if self.train_by_index:
            indices = IndexDataset(len(self.train_items))
            return self._dataloader(indices, self.train_batch_size, sampler, num_workers=0)
        return self._dataloader(self.train_items, self.train_batch_size, sampler)

    def ordered_train_dataloader(self) -> DataLoader:
        """All training images or tiles in the dataset's order, the same in every process."""
        return self.ordered_dataloader(self.train_items, self.train_batch_size)

    def ordered_dataloader(
        self, images: AnomalyDataset | TileDataset, batch_size: int | None = None
    ) -> DataLoader:
        """Images in their dataset's order; ``batch_size`` defaults to that of the test."""
        sampler = SequentialSampler(images)
        return self._dataloader(images, batch_size or self.test_batch_size, sampler)

    def test_dataloader(self) -> DataLoader:
        """Every test image exactly once, for any number of processes."""
        return self._exact_dataloader(self.test_set)

    def val_dataloader(self) -> dict[str, DataLoader]:
        """Images to evaluate after each epoch, by the prefix of their logged metrics.

        ``val``: the held-out images; ``test_curve``: the test images, if requested; the curve is
        never used to select a model.
        """
        loaders = {} if self.val_set is None else {"val": self._exact_dataloader(self.val_set)}
        return loaders | ({"test_curve": self.test_dataloader()} if self.test_curve else {})

    def _exact_dataloader(self, dataset: AnomalyDataset) -> DataLoader:
        """Every image exactly once, divided among the processes."""
        world_size, rank = self._world()
        if world_size > len(dataset):
            raise UserError(
                f"trainer.devices: {world_size} processes cannot share {len(dataset)} images; use"
                " fewer"
            )
        sampler = StridedSampler(len(dataset), rank, world_size)
        return self._dataloader(dataset, self.test_batch_size, sampler)

    def _dataloader(
        self, dataset: Dataset, batch_size: int, sampler: Sampler, num_workers: int | None = None
    ) -> DataLoader:
        workers = self._workers() if num_workers is None else num_workers
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            multiprocessing_context=start_method() if workers else None,
            persistent_workers=workers > 0,
            pin_memory=on_cuda,  # a cost without benefit on the CPU
            # A separate generator: reading must not change the random numbers of training.
            generator=torch.Generator().manual_seed(process_seed(self.seed, self._world()[1])),
        )

    def _workers(self) -> int:
        """This process's share of the workers, at least one if any were requested."""
        processes = 1 if self.trainer is None else self.trainer.num_devices
        if self.num_workers is not None:
            return math.ceil(self.num_workers / processes)
        if self.default_workers is None:  # once, so that all loaders have the same number
            each = min(8, max(0, usable_cores() // processes - 1))
            # Launchers limit the threads of jobs that share the machine; this limits workers too.
            threads = os.environ.get(THREADS, "")
            each = min(each, max(1, int(threads))) if threads.isdecimal() else each
            self.default_workers = count_workers(None, processes * each, self.batch_bytes)
        return self.default_workers // processes

    def _world(self) -> tuple[int, int]:
        """Number of processes, and the rank of this one."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank


class EpochSampler(DistributedSampler[Any]):
    """Yields ``(index, epoch)``: the random numbers of a transform depend on the epoch."""

    def __iter__(self) -> Iterator[Any]:
        return ((index, self.epoch) for index in super().__iter__())


class IndexDataset(Dataset[dict[str, int]]):
    """Items ``{"index": i}``, to train on cached features."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, int]:
        return {"index": index_and_epoch(index)[0]}


class StridedSampler(Sampler[int]):
    """Items rank, rank + world_size, ...; unlike torch's DistributedSampler, without repeats."""

    def __init__(self, length: int, rank: int, world_size: int) -> None:
        self.indices = range(rank, length, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
