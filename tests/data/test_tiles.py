"""Training tiles: the right part of the image, without reading more of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_data import make_mvtec
from torchvision.transforms import v2

from anomalib_rd.data import AnomalyDataModule, AnomalyDataset, ImageCache, MVTecAD
from anomalib_rd.data.dataset import TileDataset
from anomalib_rd.data.disk_cache import ENTRY, ArrayStore

SIZE = (64, 96)
BOXES = [(slice(top, top + 32), slice(left, left + 64)) for top in (0, 16, 32) for left in (0, 32)]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = make_mvtec(tmp_path_factory.mktemp("mvtec"), categories=("cloth",), train=3)
    return MVTecAD(root).split("cloth").train


@pytest.fixture
def cache(tmp_path):
    return ImageCache(ArrayStore(tmp_path / "store"))


def tiles(samples, **options):
    return TileDataset(AnomalyDataset(samples, SIZE, **options), BOXES)


def expected(samples):
    images = [item["image"] for item in AnomalyDataset(samples, SIZE)]
    return [image[:, rows, columns] for image in images for rows, columns in BOXES]


def assert_tiles(dataset, expected_tiles):
    assert len(dataset) == len(expected_tiles) == 18
    for index, tile in enumerate(expected_tiles):
        item = dataset[index]
        assert set(item) == {"index", "image", "label"} and item["index"] == index
        assert torch.equal(item["image"], tile) and item["image"].is_contiguous()
        assert item["image"].untyped_storage().nbytes() == tile.numel()  # not a view of the image


def test_tiles_are_parts_of_the_image_with_and_without_cache(samples, cache):
    expected_tiles = expected(samples)
    assert_tiles(tiles(samples), expected_tiles)
    for _ in ("filled", "used"):
        assert_tiles(tiles(samples, cache=cache), expected_tiles)


def test_the_transform_is_applied_before_cutting(samples, cache):
    flipped = [tile.flip(-1) for tile in expected(samples)]
    # Flipped, the left tiles are the right ones.
    expected_tiles = [flipped[index ^ 1] for index in range(len(flipped))]
    for kept in (None, cache, cache):
        flip = v2.RandomHorizontalFlip(p=1)
        assert_tiles(tiles(samples, cache=kept, transform=flip), expected_tiles)


def test_a_transform_does_not_modify_the_remembered_image(samples):
    brighter = tiles(samples, transform=lambda image: image.add_(1))
    assert torch.equal(brighter[0]["image"], brighter[0]["image"])


def test_an_image_is_decoded_once_for_all_its_tiles(samples, monkeypatch):
    read, decoded = AnomalyDataset._read, []
    monkeypatch.setattr(
        AnomalyDataset, "_read", lambda self, *args: decoded.append(args[0]) or read(self, *args)
    )
    dataset = tiles(samples)
    for index in range(len(dataset)):
        dataset[index]
    assert decoded == [sample.path for sample in samples]


def test_only_the_rows_of_a_tile_are_read_from_the_cache(samples, cache, monkeypatch):
    list(map(tiles(samples, cache=cache).__getitem__, range(18)))
    store = cache.store
    get, complete, parts = store.get, [], []
    monkeypatch.setattr(store, "get", lambda *args: complete.append(args) or get(*args))
    rows = store.get_rows
    monkeypatch.setattr(store, "get_rows", lambda *args: parts.append(part := rows(*args)) or part)
    dataset = tiles(samples, cache=cache)
    for index in np.random.default_rng(0).permutation(18):
        dataset[int(index)]
    assert complete == []  # each was checked on the first read
    assert {part.shape for part in parts} == {(3, 32, 96)} and len(parts) == 18


def test_an_altered_cache_entry_is_decoded_again(samples, cache):
    dataset, expected_tiles = tiles(samples, cache=cache), expected(samples)
    assert_tiles(dataset, expected_tiles)
    for entry in cache.store.folder.glob(f"*{ENTRY}"):
        content = bytearray(entry.read_bytes())
        content[5] ^= 1
        entry.with_suffix(".new").write_bytes(content)
        entry.with_suffix(".new").replace(entry)
    assert_tiles(dataset, expected_tiles)


def test_only_test_batches_have_masks(samples):
    root = samples[0].path.parents[3]
    for boxes in (None, BOXES):
        data = AnomalyDataModule(MVTecAD(root), "cloth", SIZE, num_workers=0, tiles=boxes)
        for loader in (data.train_dataloader(), data.ordered_train_dataloader()):
            assert set(next(iter(loader))) == {"index", "image", "label"}
        assert "mask" in next(iter(data.test_dataloader()))


def test_masks_of_training_images_are_not_opened(samples, tmp_path):
    masked = [replace(sample, mask=tmp_path / "not there.png") for sample in samples]
    assert "mask" not in AnomalyDataset(masked, SIZE, masks=False)[0]
