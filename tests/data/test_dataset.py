"""The dataset's items."""

import pickle

import pytest
import torch
from image_trees import write_mask
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from anomalib_rd.data import AnomalyDataset, ImageCache, MVTecAD
from anomalib_rd.data.disk_cache import ArrayStore
from anomalib_rd.errors import UserError


@pytest.fixture
def samples(mvtec_root):
    return MVTecAD(mvtec_root).split("bottle").test


def test_items(samples):
    dataset = AnomalyDataset(samples, (16, 24))
    assert len(dataset) == 6
    defect, good = dataset[0], dataset[2]
    assert set(defect) == {"index", "image", "mask", "label"}
    assert (defect["index"], defect["label"], good["label"]) == (0, 1, 0)
    assert defect["image"].shape == (3, 16, 24)
    assert defect["image"].dtype == torch.uint8
    assert defect["mask"].dtype == good["mask"].dtype == torch.bool
    assert defect["mask"].float().mean() == 0.5
    assert good["mask"].shape == (16, 24)
    assert not good["mask"].any()


def test_batches_are_the_same_with_workers(samples):
    dataset = AnomalyDataset(samples, [16, 16])
    single, worker = (next(iter(DataLoader(dataset, 6, num_workers=n))) for n in (0, 1))
    assert single["image"].shape == (6, 3, 16, 16)
    assert single["mask"].shape == (6, 16, 16)
    assert single["label"].tolist() == [1, 1, 0, 0, 1, 1]
    assert single["index"].tolist() == list(range(6))
    assert all(torch.equal(single[key], worker[key]) for key in single)


def test_the_transform_changes_only_the_image(samples):
    plain = AnomalyDataset(samples, (16, 16))[0]
    flipped = AnomalyDataset(samples, (16, 16), v2.RandomHorizontalFlip(p=1))[0]
    assert torch.equal(flipped["image"], plain["image"].flip(-1))
    assert torch.equal(flipped["mask"], plain["mask"])


def test_the_error_of_a_mask_size_names_both_files(samples, one_line):
    write_mask(samples[0].mask, (13, 8))
    with pytest.raises(UserError) as info:
        AnomalyDataset(samples, (16, 16))[0]
    message = one_line(info)
    assert str(samples[0].mask) in message
    assert str(samples[0].path) in message


def test_past_the_end(samples):
    with pytest.raises(IndexError):
        AnomalyDataset(samples, (16, 16))[6]


def test_pickles_for_spawned_workers(samples):
    dataset = pickle.loads(pickle.dumps(AnomalyDataset(samples, (16, 16))))
    assert torch.equal(dataset[1]["image"], AnomalyDataset(samples, (16, 16))[1]["image"])


def test_items_are_the_same_with_a_cache(samples, tmp_path):
    plain = AnomalyDataset(samples, (16, 24))
    for _ in ("filled", "used"):
        cache = ImageCache(ArrayStore(tmp_path / "cache"))
        cached = AnomalyDataset(samples, (16, 24), cache=cache)
        for item, expected in zip(cached, plain, strict=True):
            assert (item["index"], item["label"]) == (expected["index"], expected["label"])
            assert torch.equal(item["image"], expected["image"])
            assert torch.equal(item["mask"], expected["mask"])


def test_a_second_dataset_decodes_nothing(samples, tmp_path, monkeypatch):
    store = ArrayStore(tmp_path / "cache")
    first = list(AnomalyDataset(samples, (16, 16), cache=ImageCache(store)))
    monkeypatch.setattr("anomalib_rd.data.image_cache.read_pair", None)
    again = list(AnomalyDataset(samples, (16, 16), cache=ImageCache(store)))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))


def test_the_transform_is_applied_to_cached_images(samples, tmp_path):
    cache = ImageCache(ArrayStore(tmp_path / "cache"))
    plain = AnomalyDataset(samples, (16, 16))[0]["image"]
    flipping = AnomalyDataset(samples, (16, 16), v2.RandomHorizontalFlip(p=1), cache)
    assert all(torch.equal(flipping[0]["image"], plain.flip(-1)) for _ in range(2))
    assert torch.equal(AnomalyDataset(samples, (16, 16), cache=cache)[0]["image"], plain)


def test_pickles_with_a_cache(samples, tmp_path):
    store = ArrayStore(tmp_path / "cache")
    dataset = pickle.loads(pickle.dumps(AnomalyDataset(samples, (16, 16), cache=ImageCache(store))))
    assert torch.equal(dataset[1]["image"], AnomalyDataset(samples, (16, 16))[1]["image"])
    assert store.usage()[0] == 1
