import json
import zipfile
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from anomalib_rd.errors import UserError
from anomalib_rd.results.gallery import GALLERY, Gallery, has_gallery, write_gallery
from anomalib_rd.results.scored_image import ScoredImage


def scored(row=0, size=(96, 64), mask="square", **changes):
    height, width = size
    image = np.full((height, width, 3), 40 + 20 * row, np.uint8)
    truth = np.zeros(size, bool)
    if mask == "square":
        truth[10:30, 5:25] = True
    values = np.linspace(0, 1, height * width).reshape(size)
    fields = {"row": row, "path": f"a/test/é{row}.png", "image": image, "anomaly_map": values}
    return ScoredImage(**(fields | {"mask": None if mask is None else truth} | changes))


def pixels(content):
    return np.asarray(Image.open(BytesIO(content)))


def rewrite(folder, change, name="index.json"):
    """Change or remove one file of the archive."""
    path = folder / GALLERY
    with zipfile.ZipFile(path) as archive:
        contents = {n: archive.read(n) for n in archive.namelist()}
    contents[name] = change(contents[name])
    with zipfile.ZipFile(path, "w") as archive:
        for n, content in contents.items():
            if content is not None:
                archive.writestr(n, content)


def edit_index(folder, **changes):
    rewrite(folder, lambda text: json.dumps(json.loads(text) | changes).encode())


def test_written_images_are_read_back(tmp_path):
    assert not has_gallery(tmp_path)
    images = [scored(0), scored(3, mask="empty"), scored(7, mask=None)]
    path = write_gallery(tmp_path, iter(images), low=0.25, high=0.75, threshold=0.5)
    assert path == tmp_path / "gallery.zip" and has_gallery(tmp_path)
    with Gallery(tmp_path) as gallery:
        assert gallery.paths == ["a/test/é0.png", "a/test/é3.png", "a/test/é7.png"]
        assert (gallery.low, gallery.high, gallery.threshold) == (0.25, 0.75, 0.5)
        assert gallery.size == (96, 64) and gallery.map_size == (96, 64)
        for one in images:
            picture = pixels(gallery.image(one.path))
            assert picture.shape == (96, 64, 3)
            assert abs(picture.astype(int) - one.image).max() <= 2
        assert np.array_equal(gallery.mask(images[0].path), images[0].mask)
        normal = gallery.mask(images[1].path)
        assert normal.shape == (96, 64) and not normal.any()
        assert gallery.mask(images[2].path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["gallery.zip"]


def test_files_are_named_by_row_and_stored(tmp_path):
    write_gallery(tmp_path, [scored(2), scored(5, mask="empty")], 0, 1, None)
    with zipfile.ZipFile(tmp_path / GALLERY) as archive:
        assert set(archive.namelist()) == {
            *("image/2.jpg", "map/2.jpg", "mask/2.png", "image/5.jpg", "map/5.jpg", "index.json")
        }
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_maps_share_a_scale_and_are_clipped(tmp_path):
    write_gallery(tmp_path, [scored()], low=0.25, high=0.75, threshold=None)
    with Gallery(tmp_path) as gallery:
        grey = pixels(gallery.map("a/test/é0.png")).astype(float)
        assert gallery.threshold is None
    values = np.linspace(0, 1, 96 * 64).reshape(96, 64)
    expected = 255 * np.clip((values - 0.25) / 0.5, 0, 1)
    assert grey.ndim == 2 and abs(grey - expected).max() < 6


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_constant_and_undefined_maps_are_drawn(tmp_path, value):
    flat = np.full((96, 64), value)
    write_gallery(tmp_path, [scored(anomaly_map=flat)], low=0.5, high=0.5, threshold=None)
    with Gallery(tmp_path) as gallery:
        assert np.ptp(pixels(gallery.map("a/test/é0.png"))) == 0


def test_large_images_are_downscaled(tmp_path):
    size = (300, 600)
    truth = np.zeros(size, bool)
    truth[60:180, 120:360] = True
    big = replace(scored(size=size), path="p", mask=truth, anomaly_map=np.ones(size))
    write_gallery(tmp_path, [big], 0, 2, None)
    with Gallery(tmp_path) as gallery:
        assert gallery.size == (128, 256) and gallery.map_size == (64, 128)
        assert pixels(gallery.image("p")).shape == (128, 256, 3)
        assert abs(pixels(gallery.map("p")).astype(int) - 128).max() <= 1
        mask = gallery.mask("p")
        assert mask.shape == (128, 256) and mask.mean() == pytest.approx(truth.mean(), rel=0.05)
        assert mask[26:76, 52:153].all()


def test_defect_of_one_pixel_is_preserved(tmp_path):
    truth = np.zeros((1024, 1024), bool)
    truth[500, 700] = True
    picture = np.zeros((1024, 1024, 3), np.uint8)
    write_gallery(
        tmp_path,
        [ScoredImage(row=0, path="p", image=picture, mask=truth, anomaly_map=np.zeros((9, 9)))],
        0,
        1,
        None,
    )
    with Gallery(tmp_path) as gallery:
        assert np.argwhere(gallery.mask("p")).tolist() == [[125, 175]]


def test_failure_writes_no_file(tmp_path):
    def failing():
        yield scored(0)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_gallery(tmp_path, failing(), 0, 1, None)
    assert not list(tmp_path.iterdir())


def test_different_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="size"):
        write_gallery(tmp_path, [scored(0), scored(1, size=(64, 64))], 0, 1, None)
    wrong = replace(scored(0), mask=np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="mask"):
        write_gallery(tmp_path, [wrong], 0, 1, None)


def test_equal_images_give_equal_bytes(tmp_path):
    first = write_gallery(tmp_path, [scored(0)], 0, 1, None).read_bytes()
    assert write_gallery(tmp_path, [scored(0)], 0, 1, None).read_bytes() == first


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gallery\.zip"):
        Gallery(tmp_path)
    path = write_gallery(tmp_path, [scored(0)], 0, 1, None)
    whole = path.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"gallery\.zip"):
            Gallery(tmp_path)


@pytest.mark.parametrize("text", [b"[]", b"{", b'{"version": 1}', b"null", b"\xff"])
def test_damaged_index_is_named(tmp_path, text):
    write_gallery(tmp_path, [scored(0)], 0, 1, None)
    rewrite(tmp_path, lambda _: text)
    with pytest.raises(UserError, match=r"gallery\.zip"):
        Gallery(tmp_path)


def test_other_version_is_refused(tmp_path):
    write_gallery(tmp_path, [scored(0)], 0, 1, None)
    edit_index(tmp_path, version=2)
    with pytest.raises(UserError, match=r"version is 2.* 1"):
        Gallery(tmp_path)


def test_damaged_contents_are_named(tmp_path):
    path = write_gallery(tmp_path, [scored(0)], 0, 1, None)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("image/0.jpg").header_offset + 60
    path.write_bytes(content[:start] + b"\0\0\0" + content[start + 3 :])
    with Gallery(tmp_path) as gallery, pytest.raises(UserError, match=r"gallery\.zip"):
        gallery.image("a/test/é0.png")
    path.write_bytes(content)
    rewrite(tmp_path, lambda _: b"no picture", "mask/0.png")
    with Gallery(tmp_path) as gallery, pytest.raises(UserError, match=r"gallery\.zip"):
        gallery.mask("a/test/é0.png")
    rewrite(tmp_path, lambda _: None, "map/0.jpg")
    with Gallery(tmp_path) as gallery, pytest.raises(UserError, match=r"gallery\.zip"):
        gallery.map("a/test/é0.png")


def test_missing_image_is_named(tmp_path):
    write_gallery(tmp_path, [scored(0)], 0, 1, None)
    with Gallery(tmp_path) as gallery, pytest.raises(UserError, match=r"gallery\.zip: .* b;"):
        gallery.image("b")
