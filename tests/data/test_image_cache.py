"""The image cache returns the same bits as decoding, and decodes each image once."""

import errno
import logging
import multiprocessing
import os
import pickle
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from image_trees import write_image, write_mask
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_rd.data import AnomalyDataset, Sample, disk_cache, fingerprint, images
from anomalib_rd.data.disk_cache import ArrayStore
from anomalib_rd.data.image_cache import ImageCache
from anomalib_rd.data.images import read_pair
from anomalib_rd.errors import UserError

SIZE = (6, 10)


@pytest.fixture(autouse=True)
def clear_caches():
    """As in a new process."""
    fingerprint._hash_file.cache_clear()
    disk_cache._remove_stale_parts.cache_clear()


@pytest.fixture
def store(tmp_path):
    return ArrayStore(tmp_path / "store")


@pytest.fixture
def cache(store):
    return ImageCache(store)


@pytest.fixture
def no_decoder(monkeypatch):
    """Call it to forbid decoding from then on."""

    def refuse(path):
        raise AssertionError(f"{path} was decoded")

    return lambda: monkeypatch.setattr(images, "_open", refuse)


def same(a, b):
    (image, mask), (other, other_mask) = a, b
    masks = mask is other_mask is None or (
        mask.dtype == other_mask.dtype == torch.bool and torch.equal(mask, other_mask)
    )
    return image.dtype == other.dtype == torch.uint8 and torch.equal(image, other) and masks


RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (16, 20), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (16, 20, 4), dtype=np.uint8)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


MODES = {
    "rgb.png": (Image.fromarray(COLOUR[..., :3]), {}),
    "photo.jpg": (Image.fromarray(COLOUR[..., :3]), {}),
    "grey.png": (Image.fromarray(GREY), {}),
    "rgba.png": (Image.fromarray(COLOUR), {}),
    "deep.png": (Image.fromarray(GREY.astype(np.uint16) * 257), {}),
    "float.tif": (Image.fromarray(GREY.astype(np.float32) / 255), {}),
    "palette.png": (Image.fromarray(GREY).convert("P"), {"transparency": 3}),
    "bits.png": (Image.fromarray(GREY > 127), {}),
    "turned.jpg": (Image.fromarray(COLOUR[..., :3]), turned()),
}


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("name", MODES)
def test_returns_the_same_bits_from_file_and_cache(tmp_path, store, name, with_mask):
    image, options = MODES[name]
    path = tmp_path / name
    image.save(path, **options)
    stored = (16, 20) if name == "turned.jpg" else (20, 16)
    mask = write_mask(tmp_path / "mask.png", stored) if with_mask else None
    for size in (SIZE, (16, 20)):
        fresh = read_pair(path, mask, size)
        assert same(ImageCache(store).read(path, mask, size), fresh)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(images, "_open", None)
            assert same(ImageCache(store).read(path, mask, size), fresh)


def test_modifying_a_result_does_not_change_the_cache(tmp_path, cache):
    path = write_image(tmp_path / "a.png")
    fresh = read_pair(path, None, SIZE)
    for _ in range(3):
        image, _ = cache.read(path, None, SIZE)
        assert torch.equal(image, fresh[0])
        image.zero_()


def test_two_copies_of_a_file_are_decoded_once(tmp_path, cache, no_decoder):
    path, copy = (write_image(tmp_path / name / "a.png") for name in ("x", "y"))
    mask, its_copy = (write_mask(tmp_path / name / "mask.png") for name in ("x", "y"))
    fresh, pair = cache.read(path, None, SIZE), cache.read(path, mask, SIZE)
    no_decoder()
    assert same(cache.read(copy, None, SIZE), fresh)
    assert same(cache.read(copy, its_copy, SIZE), pair)
    assert cache.store.usage()[0] == 2


def test_entries_differ_by_size_and_mask(tmp_path, cache):
    path = write_image(tmp_path / "a.png")
    other = write_image(tmp_path / "b.png", value=7)
    masks = [None, write_mask(tmp_path / "m.png"), write_mask(tmp_path / "n.png", white=0)]
    requests = [
        (image, mask, size)
        for image in (path, other)
        for mask in masks
        for size in ((4, 6), (6, 4), (2, 12), (8, 12))
    ]
    for _ in range(2):
        assert all(same(cache.read(*request), read_pair(*request)) for request in requests)
    assert cache.store.usage()[0] == len(requests)


def test_entries_differ_by_reader_version(tmp_path, cache, monkeypatch):
    path = write_image(tmp_path / "a.png")
    cache.read(path, None, SIZE)
    monkeypatch.setattr("anomalib_rd.data.image_cache.READING", "another")
    cache.read(path, None, SIZE)
    monkeypatch.setattr("PIL.__version__", "99.0")
    cache.read(path, None, SIZE)
    assert cache.store.usage()[0] == 3


def test_a_mask_is_cached_only_with_an_image_of_its_size(tmp_path, cache):
    image, large = write_image(tmp_path / "a.png"), write_image(tmp_path / "b.png", (24, 16))
    mask, large_mask = write_mask(tmp_path / "m.png"), write_mask(tmp_path / "n.png", (24, 16))
    cache.read(image, mask, SIZE)
    cache.read(large, large_mask, SIZE)
    for _ in range(2):
        with pytest.raises(UserError, match=r"m\.png .*12x8 .*b\.png .*24x16"):
            cache.read(large, mask, SIZE)


@pytest.mark.parametrize("new_process", [False, True])
@pytest.mark.parametrize("keep_time", [False, True])
def test_a_changed_file_is_decoded_again(tmp_path, cache, new_process, keep_time):
    path = tmp_path / "a.bmp"  # uncompressed: the file size does not change
    write_image(path, value=10)
    before = path.stat()
    assert cache.read(path, None, SIZE)[0].unique() == 10
    time.sleep(0.02)  # longer than the resolution of file times
    write_image(path, value=20)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if new_process:
        fingerprint._hash_file.cache_clear()
    assert path.stat().st_size == before.st_size
    assert cache.read(path, None, SIZE)[0].unique() == 20


def test_a_file_replaced_while_it_is_read_is_not_cached(tmp_path, cache, monkeypatch):
    path = write_image(tmp_path / "a.png", value=10)

    def replace_and_read(path, mask, size, rule):
        write_image(path, (24, 16), value=200)
        return read_pair(path, mask, size)

    with monkeypatch.context() as patch:
        patch.setattr("anomalib_rd.data.image_cache.read_pair", replace_and_read)
        assert cache.read(path, None, SIZE)[0].unique() == 200
    assert cache.store.usage()[0] == 0
    write_image(path, value=10)
    assert cache.read(path, None, SIZE)[0].unique() == 10


def test_hashes_each_file_once_in_a_process(tmp_path, cache):
    path, mask = write_image(tmp_path / "a.png"), write_mask(tmp_path / "m.png")
    for size in (SIZE, SIZE, (4, 4)):
        cache.read(path, mask, size)
    assert fingerprint._hash_file.cache_info().misses == 2


def test_a_damaged_entry_is_replaced(tmp_path, cache, no_decoder, caplog):
    path = write_image(tmp_path / "a.png")
    fresh = cache.read(path, None, SIZE)
    (entry,) = cache.store.folder.iterdir()
    content = entry.read_bytes()
    entry.write_bytes(content[:9] + b"X" + content[10:])
    assert same(cache.read(path, None, SIZE), fresh)
    assert entry.read_bytes() == content
    no_decoder()
    assert same(cache.read(path, None, SIZE), fresh)
    assert not caplog.records


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"no image")])
def test_errors_are_the_same_as_without_the_cache(tmp_path, cache, damage):
    path = write_image(tmp_path / "a.png")
    cache.read(path, None, SIZE)
    damage(path)
    messages = []
    for read in (read_pair, cache.read):
        with pytest.raises(UserError) as info:
            read(path, None, SIZE)
        messages.append(str(info.value))
    assert messages[0] == messages[1]
    assert "a.png" in messages[0]


def test_warns_once_if_the_folder_cannot_be_made(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    cache = ImageCache(ArrayStore(tmp_path / "file" / "decoded"))
    paths = [write_image(tmp_path / f"{i}.png") for i in range(3)]
    for path in paths * 2:
        assert same(cache.read(path, None, SIZE), read_pair(path, None, SIZE))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert str(tmp_path / "file") in message and "Not a directory" in message
    assert "\n" not in message


def test_a_full_disk_warns_once_and_cached_images_are_still_used(
    tmp_path, cache, caplog, no_decoder
):
    cached, *others = (write_image(tmp_path / f"{i}.png") for i in range(4))
    fresh = cache.read(cached, None, SIZE)

    def full(key, values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache.store.put = full
    for path in others:
        assert same(cache.read(path, None, SIZE), read_pair(path, None, SIZE))
    (record,) = caplog.records
    assert "No space left" in record.getMessage()
    no_decoder()
    assert same(cache.read(cached, None, SIZE), fresh)


def test_an_interrupted_write_leaves_no_file(tmp_path, cache, monkeypatch, caplog):
    def full(values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk_cache, "_checksum", full)  # after the values are written
    cache.read(write_image(tmp_path / "a.png"), None, SIZE)
    assert list(cache.store.folder.iterdir()) == []
    assert len(caplog.records) == 1


def test_one_worker_warns_for_all(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    cache = ImageCache(ArrayStore(tmp_path / "file" / "decoded"))
    path = write_image(tmp_path / "a.png")
    worker = multiprocessing.get_context("fork").Process(target=cache.read, args=(path, None, SIZE))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    cache.read(path, None, SIZE)
    # As a spawned worker receives it.
    pickle.loads(ForkingPickler.dumps(cache)).read(path, None, SIZE)
    assert not caplog.records


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_fill_one_cache_concurrently(tmp_path, store, no_decoder, start):
    paths = [write_image(tmp_path / f"{i:02}.png", (48, 40)) for i in range(40)]
    mask = write_mask(tmp_path / "mask.png", (48, 40))
    samples = [Sample(p, "c", "hole", 1, m) for p in paths for m in (None, mask)]
    fresh = list(AnomalyDataset(samples, SIZE))
    loaders = [
        iter(
            DataLoader(
                AnomalyDataset(samples, SIZE, cache=ImageCache(store)),
                batch_size=None,
                num_workers=1,
                multiprocessing_context=start,
            )
        )
        for _ in range(2)
    ]
    for items in zip(fresh, *loaders, strict=True):
        assert all(torch.equal(item["image"], items[0]["image"]) for item in items)
        assert all(torch.equal(item["mask"], items[0]["mask"]) for item in items)
    assert {path.suffix for path in store.folder.iterdir()} == {disk_cache.ENTRY}
    assert store.usage()[0] == 2 * len({path.read_bytes() for path in paths})
    no_decoder()
    for item, expected in zip(
        AnomalyDataset(samples, SIZE, cache=ImageCache(store)), fresh, strict=True
    ):
        assert torch.equal(item["image"], expected["image"])
