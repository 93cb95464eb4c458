"""Data sets as published: layouts, masks, errors."""

import csv
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_trees import mvtec_category, write_image, write_mask
from PIL import Image

from anomalib_rd.data.fingerprint import dataset_fingerprint, hash_content
from anomalib_rd.data.images import load_mask
from anomalib_rd.data.sources.layouts import BTAD, COLUMNS, LAYOUTS, MPDD, MVTecAD2, MVTecLOCO, VisA
from anomalib_rd.data.sources.source import select_categories
from anomalib_rd.errors import UserError


def describe_test(split):
    return [(s.path.name, s.defect, s.label, s.mask and s.mask.name) for s in split.test]


@pytest.fixture
def visa_root(tmp_path):
    """Two objects of two training, one normal and two anomalous test images."""
    root, rows = tmp_path / "VisA", []
    for name in ("candle", "pcb1"):
        images, masks = Path(name, "Data", "Images"), Path(name, "Data", "Masks", "Anomaly")
        for number, part in ((2, "train"), (0, "test"), (1, "train")):
            image = images / "Normal" / f"{number:04}.JPG"
            rows.append((name, part, "normal", image.as_posix(), ""))
            write_image(root / image)
        for number in (1, 0):
            image, mask = images / "Anomaly" / f"{number:03}.JPG", masks / f"{number:03}.png"
            rows.append((name, "test", "anomaly", image.as_posix(), mask.as_posix()))
            write_image(root / image)
            write_mask(root / mask, white=number + 1)
    write_split(root, rows)
    return root


def write_split(root, rows):
    (root / "split_csv").mkdir(exist_ok=True)
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


class TestVisA:
    def test_uses_the_split_file(self, visa_root):
        source = VisA(visa_root)
        assert select_categories(source, "all") == ["candle", "pcb1"]
        split = source.split("candle")
        assert [s.path.name for s in split.train] == ["0001.JPG", "0002.JPG"]
        assert describe_test(split) == [
            ("0000.JPG", "good", 0, None),
            ("000.JPG", "anomaly", 1, "000.png"),
            ("001.JPG", "anomaly", 1, "001.png"),
        ]
        assert all(s.path.is_file() for s in split.train + split.test)

    @pytest.mark.parametrize("value", [1, 9])
    def test_a_mask_of_class_numbers_is_all_defect(self, visa_root, value):
        mask = write_mask(visa_root / "m.png", white=value)
        assert (np.asarray(load_mask(mask)) >= 128).mean() == 0.5

    def test_a_mask_of_several_classes_is_all_defect(self, visa_root):
        Image.fromarray(np.array([[0, 1, 2, 9]], np.uint8)).save(visa_root / "m.png")
        assert np.asarray(load_mask(visa_root / "m.png")).tolist() == [[0, 255, 255, 255]]

    def test_objects_without_folder_are_skipped(self, visa_root):
        shutil.rmtree(visa_root / "pcb1")
        assert VisA(visa_root).categories() == ["candle"]

    @pytest.mark.parametrize(
        ("row", "named"),
        [
            (("candle", "train", "anomaly", "a.JPG", "a.png"), "line 2: "),
            (("candle", "val", "normal", "a.JPG", ""), "line 2: "),
            (("candle", "train", "normal", "a.JPG", ""), "candle"),
            (("soap", "train", "normal", "a.JPG", ""), "1cls.csv"),
        ],
    )
    def test_broken_split_file(self, visa_root, one_line, row, named):
        write_split(visa_root, [row])
        with pytest.raises(UserError) as info:
            VisA(visa_root).split("candle")
        assert named in one_line(info)

    def test_a_split_file_without_the_columns(self, visa_root, one_line):
        (visa_root / "split_csv" / "1cls.csv").write_text("a,b\n1,2\n")
        with pytest.raises(UserError) as info:
            VisA(visa_root).categories()
        assert "object,split,label,image,mask" in one_line(info)

    def test_errors_suggest_the_right_root(self, visa_root, tmp_path, one_line):
        with pytest.raises(UserError) as info:
            VisA(visa_root.parent).categories()
        assert f"data.root={visa_root}" in one_line(info)
        mvtec_category(tmp_path / "again" / "1cls" / "candle")
        with pytest.raises(UserError) as info:
            VisA(tmp_path / "again").categories()
        assert f"data=mvtec data.root={tmp_path / 'again' / '1cls'}" in one_line(info)
        with pytest.raises(UserError) as info:
            VisA(tmp_path / "nowhere").categories()
        assert "VisA.tar" in one_line(info)


class TestBTAD:
    @pytest.fixture
    def root(self, tmp_path):
        for product in ("01", "02"):
            folder = tmp_path / "btad" / product
            for name in ("train/ok/0000", "train/ok/0001", "test/ok/0000", "test/ko/0003"):
                write_image(folder / f"{name}.bmp")
            write_mask(folder / "ground_truth" / "ko" / "0003.png")
        return tmp_path / "btad"

    def test_ok_is_normal_and_masks_may_have_another_extension(self, root):
        assert BTAD(root).categories() == ["01", "02"]
        split = BTAD(root).split("01")
        assert [(s.path.name, s.defect) for s in split.train] == [
            ("0000.bmp", "good"),
            ("0001.bmp", "good"),
        ]
        assert describe_test(split) == [
            ("0003.bmp", "ko", 1, "0003.png"),
            ("0000.bmp", "good", 0, None),
        ]

    def test_root_one_folder_too_high(self, root, one_line):
        with pytest.raises(UserError) as info:
            BTAD(root.parent).categories()
        assert f"data.root={root}" in one_line(info)


def test_every_layout_can_be_named_in_a_config_and_pickled(tmp_path):
    import anomalib_rd.data
    from anomalib_rd.components import build

    for name, layout in LAYOUTS.items():
        source = build({"_target_": f"anomalib_rd.data.{name}", "root": tmp_path}, "data.source")
        assert type(source) is getattr(anomalib_rd.data, name)
        assert type(source).__name__ == name and source.layout is layout
        assert pickle.loads(pickle.dumps(source)).root == tmp_path


def test_train_on_validation_without_validation_images(tmp_path):
    with pytest.raises(UserError, match="train_on_validation"):
        MPDD(tmp_path, train_on_validation=True)


def test_mpdd_has_mvtecs_layout(tmp_path):
    mvtec_category(tmp_path / "tubes")
    split = MPDD(tmp_path).split("tubes")
    assert (len(split.train), len(split.test)) == (3, 6)
    assert not MPDD(tmp_path).textures


class TestLOCO:
    @pytest.fixture
    def root(self, tmp_path):
        folder = tmp_path / "pushpins"
        for name in ("train/good/000", "train/good/001", "validation/good/000", "test/good/000"):
            write_image(folder / f"{name}.png")
        for kind in ("logical_anomalies", "structural_anomalies"):
            write_image(folder / "test" / kind / "000.png")
            write_mask(folder / "ground_truth" / kind / "000" / "000.png", white=251)
        return tmp_path

    @pytest.fixture
    def several(self, root):
        """The folder of an image with two masks: the left half, and the last column."""
        folder = root / "pushpins" / "ground_truth" / "logical_anomalies" / "000"
        pixels = np.zeros((8, 12), np.uint8)
        pixels[:, -1] = 100
        Image.fromarray(pixels).save(folder / "001.png")
        return folder

    def test_an_image_has_a_folder_of_masks(self, root):
        split = MVTecLOCO(root).split("pushpins")
        assert [s.path.parent.parent.name for s in split.train] == ["train", "train"]
        assert describe_test(split) == [
            ("000.png", "good", 0, None),
            ("000.png", "logical_anomalies", 1, "000"),
            ("000.png", "structural_anomalies", 1, "000"),
        ]

    def test_masks_are_united(self, several):
        defect = np.asarray(load_mask(several, (8, 12)))
        assert defect[0].tolist() == [255] * 6 + [0] * 5 + [255]

    def test_the_fingerprint_depends_on_each_mask(self, root, several):
        split = MVTecLOCO(root).split("pushpins")
        before, one = dataset_fingerprint(split, root), hash_content(several)
        (several / "001.png").rename(several / "002.png")
        renamed = dataset_fingerprint(split, root)
        (several / "002.png").unlink()
        assert len({before, renamed, dataset_fingerprint(split, root)}) == 3
        assert hash_content(several) != one

    def test_a_mask_of_another_size_in_the_folder(self, several, one_line):
        write_mask(several / "002.png", (6, 4))
        with pytest.raises(UserError) as info:
            load_mask(several, (8, 12), Path("image.png"))
        message = one_line(info)
        assert all(part in message for part in ("002.png", "6x4", "image.png", "12x8"))
        with pytest.raises(UserError, match="000"):
            load_mask(several)

    def test_an_empty_folder_of_masks(self, several, one_line):
        for file in several.iterdir():
            file.unlink()
        with pytest.raises(UserError) as info:
            load_mask(several)
        assert str(several) in one_line(info)

    def test_masks_without_image(self, root, one_line):
        (root / "pushpins" / "test" / "logical_anomalies" / "000.png").unlink()
        with pytest.raises(UserError) as info:
            MVTecLOCO(root).split("pushpins")
        assert str(Path("logical_anomalies", "000")) in one_line(info)

    def test_train_on_validation(self, root, one_line):
        train = MVTecLOCO(root, train_on_validation=True).split("pushpins").train
        assert [s.path.parent.parent.name for s in train] == ["train", "train", "validation"]
        shutil.rmtree(root / "pushpins" / "validation")
        assert len(MVTecLOCO(root).split("pushpins").train) == 2
        with pytest.raises(UserError) as info:
            MVTecLOCO(root, train_on_validation=True).split("pushpins")
        assert "validation" in one_line(info)


def test_mvtec_ad_2_uses_only_the_public_test_images(tmp_path):
    folder = tmp_path / "can"
    for name in ("train/good/000", "validation/good/000", "test_public/good/000"):
        write_image(folder / f"{name}_regular.png")
    for name in ("test_private/000.png", "test_private_mixed/000_mixed.png"):
        write_image(folder / name)
    write_image(folder / "test_public" / "bad" / "000_overexposed.png")
    write_mask(folder / "test_public" / "ground_truth" / "bad" / "000_overexposed_mask.png")
    write_mask(folder / "test_public" / "ground_truth" / "loose.png")
    split = MVTecAD2(tmp_path).split("can")
    assert [s.path.name for s in split.train] == ["000_regular.png"]
    assert describe_test(split) == [
        ("000_overexposed.png", "bad", 1, "000_overexposed_mask.png"),
        ("000_regular.png", "good", 0, None),
    ]
    assert len(MVTecAD2(tmp_path, train_on_validation=True).split("can").train) == 2


def test_the_image_cache_distinguishes_folders_of_masks(tmp_path):
    from anomalib_rd.data.disk_cache import ArrayStore
    from anomalib_rd.data.image_cache import ImageCache

    image, masks = write_image(tmp_path / "000.png"), tmp_path / "000"
    write_mask(masks / "000.png")
    cache = ImageCache(ArrayStore(tmp_path / "cache"))
    shares = []
    for _ in range(2):
        shares += [cache.read(image, masks, (8, 12))[1].float().mean().item() for _ in range(2)]
        Image.fromarray(np.full((8, 12), 100, np.uint8)).save(masks / "001.png")
    assert shares == [0.5, 0.5, 1.0, 1.0]
    assert cache.store.usage()[0] == 2
