import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from anomalib_rd.data.demo_images import CATEGORIES, render, render_pair
from anomalib_rd.data.demo_images.textures import TRAIN_COLUMNS, cut, photograph
from anomalib_rd.data.sources.demo import VERSION, Demo, DemoSize, ensure_demo
from anomalib_rd.errors import UserError

FEW = DemoSize(train=2, test_good=1, per_defect=1)
PAIRS = [(name, defect) for name, category in CATEGORIES.items() for defect in category.defects]


def hashes(root):
    return {
        path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "data"
    ensure_demo(root, ["grass", "washer"], FEW)
    return root


def test_layout_counts_and_licence(small):
    source = Demo(small)
    assert source.categories() == ["grass", "washer"]
    assert source.textures == {"brick", "grass", "gravel"}
    split = source.split("washer")
    assert [sample.path.name for sample in split.train] == ["000.png", "001.png"]
    assert [(s.defect, s.label) for s in split.test] == [
        ("good", 0), ("notch", 1), ("off_centre", 1), ("rust", 1), ("scratch", 1)
    ]  # fmt: skip
    for sample in split.train + split.test:
        with Image.open(sample.path) as image:
            assert (image.mode, image.size) == ("RGB", (256, 256))
        if sample.label:
            assert sample.mask == small / "washer" / "ground_truth" / sample.defect / "000_mask.png"
            with Image.open(sample.mask) as mask:
                assert (mask.mode, mask.size) == ("L", (256, 256))
                assert set(np.unique(np.asarray(mask))) == {0, 255}
        else:
            assert sample.mask is None
    assert "CC0" in (small / "README.txt").read_text(encoding="utf-8")


def test_full_size():
    assert DemoSize() == DemoSize(train=48, test_good=12, per_defect=8)
    assert len(CATEGORIES) == 8
    assert all(len(category.defects) == 4 for category in CATEGORIES.values())


def test_images_do_not_depend_on_the_number_made(small, tmp_path):
    ensure_demo(
        tmp_path / "again", ["washer", "grass"], DemoSize(train=1, test_good=1, per_defect=1)
    )
    first, again = hashes(small), hashes(tmp_path / "again")
    assert again.items() <= first.items()
    assert set(first) - set(again) == {"grass/train/good/001.png", "washer/train/good/001.png"}


@pytest.mark.parametrize("name", CATEGORIES)
def test_normal_images_differ_from_each_other(name):
    images = [render(name, "train", 0), render(name, "train", 1), render(name, "test", 0)]
    for i in range(3):
        change = np.abs(images[i].astype(int) - images[i - 1]).max(axis=2)
        assert (change > 8).mean() > 0.1


@pytest.mark.parametrize(("name", "defect"), PAIRS)
def test_the_mask_is_where_the_defect_changed_the_image(name, defect):
    for index in range(2):
        normal, defective, mask = render_pair(name, defect, index)
        changed = (normal != defective).any(axis=2)
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.5
        assert 0 < mask.mean() < 0.25


def test_train_and_test_images_use_different_parts_of_the_photograph(monkeypatch):
    halves = np.zeros((512, 512), np.float32)
    halves[:, TRAIN_COLUMNS:] = 1
    monkeypatch.setattr("anomalib_rd.data.demo_images.textures.photograph", lambda name: halves)
    for seed in range(20):
        assert cut("grass", np.random.default_rng(seed), False, turn=10, span=160).max() == 0
        assert cut("grass", np.random.default_rng(seed), True, turn=10, span=160).min() == 1


def test_photographs_need_no_network(monkeypatch):
    monkeypatch.setattr("socket.socket", None)
    photograph.cache_clear()
    assert all(photograph(name).shape == (512, 512) for name in ("brick", "grass", "gravel"))


def test_is_made_once(small):
    before = hashes(small)
    ensure_demo(small, ["chip"], FEW)
    assert hashes(small) == before


def test_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ANOMALIB_RD_CACHE", str(tmp_path))
    ensure_demo(tmp_path / VERSION, ["washer"], FEW)
    assert Demo().root == tmp_path / VERSION


def test_a_failed_attempt_leaves_no_files_and_can_be_repeated(monkeypatch, tmp_path):
    root = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr("anomalib_rd.data.sources.demo.render_pair", _no_space)
        with pytest.raises(UserError, match="ANOMALIB_RD_CACHE") as caught:
            ensure_demo(root, ["washer"], FEW)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    # As after a killed process: a folder of another name, none at the root.
    (tmp_path / ".data-killed" / "data" / "washer" / "train" / "good").mkdir(parents=True)
    ensure_demo(root, ["washer"], FEW)
    assert len(Demo(root).split("washer").test) == 5


def _no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "README.txt").write_text("My photographs")
    with pytest.raises(UserError, match=r"data\.root"):
        Demo(tmp_path)


def test_two_processes_concurrently(tmp_path, small):
    code = (
        "import sys; from pathlib import Path;"
        "from anomalib_rd.data.sources.demo import DemoSize, ensure_demo;"
        "ensure_demo(Path(sys.argv[1]), ['grass', 'washer'], DemoSize(2, 1, 1))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert hashes(tmp_path / "data") == hashes(small)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
