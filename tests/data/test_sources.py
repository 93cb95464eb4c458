"""MVTec AD's layout, your own folders, selection of categories, fingerprint."""

import shutil
import sys
from pathlib import Path
from subprocess import run

import pytest
from image_trees import mvtec_category, write_image, write_mask
from omegaconf import OmegaConf

from anomalib_rd.data.fingerprint import dataset_fingerprint
from anomalib_rd.data.sources.folder import Folder, select_test_images
from anomalib_rd.data.sources.layouts import MVTEC_OBJECTS, MVTEC_TEXTURES, MVTecAD
from anomalib_rd.data.sources.source import select_categories
from anomalib_rd.errors import UserError


def test_mvtec_has_ten_objects_and_five_textures():
    assert len(MVTEC_OBJECTS) == 10
    assert len(MVTEC_TEXTURES) == 5
    assert not MVTEC_OBJECTS & MVTEC_TEXTURES


class TestMVTec:
    def test_categories_and_split(self, mvtec_root):
        (mvtec_root / "readme.txt").write_text("not a category")
        (mvtec_root / "notes").mkdir()
        source = MVTecAD(mvtec_root)
        assert source.categories() == ["bottle", "capsule", "carpet"]
        split = source.split("bottle")
        assert [s.path.name for s in split.train] == ["000.png", "001.png", "002.png"]
        assert {(s.defect, s.label, s.mask) for s in split.train} == {("good", 0, None)}
        tested = [(s.defect, s.label, s.path.name, s.mask and s.mask.name) for s in split.test]
        assert tested == [
            ("crack", 1, "000.png", "000_mask.png"),
            ("crack", 1, "001.png", "001_mask.png"),
            ("good", 0, "000.png", None),
            ("good", 0, "001.png", None),
            ("hole", 1, "000.png", "000_mask.png"),
            ("hole", 1, "001.png", "001_mask.png"),
        ]
        mask = split.test[0].mask
        assert mask == mvtec_root / "bottle" / "ground_truth" / "crack" / "000_mask.png"

    def test_image_extensions_in_any_case_without_hidden_files(self, mvtec_root):
        folder = mvtec_root / "bottle" / "train" / "good"
        for name in ("010.PNG", "011.jpg", "012.JPEG", "013.bmp", "014.TIF", "015.webp"):
            write_image(folder / name)
        for name in ("._000.png", "Thumbs.db", "020.txt"):
            (folder / name).write_bytes(b"x")
        names = [s.path.name for s in MVTecAD(mvtec_root).split("bottle").train]
        assert names[3:] == ["010.PNG", "011.jpg", "012.JPEG", "013.bmp", "014.TIF", "015.webp"]

    def test_masks_may_be_missing(self, mvtec_root):
        (mvtec_root / "bottle" / "ground_truth" / "crack" / "000_mask.png").unlink()
        shutil.rmtree(mvtec_root / "bottle" / "ground_truth" / "hole")
        test = MVTecAD(mvtec_root).split("bottle").test
        assert [s.mask is not None for s in test if s.label] == [False, True, False, False]

    def test_a_mask_without_image(self, mvtec_root, one_line):
        (mvtec_root / "bottle" / "test" / "crack" / "001.png").unlink()
        with pytest.raises(UserError) as info:
            MVTecAD(mvtec_root).split("bottle")
        assert str(Path("ground_truth", "crack", "001_mask.png")) in one_line(info)

    def test_masks_without_their_test_folder(self, mvtec_root, one_line):
        shutil.rmtree(mvtec_root / "bottle" / "test" / "hole")
        with pytest.raises(UserError) as info:
            MVTecAD(mvtec_root).split("bottle")
        assert "000_mask.png" in one_line(info)
        assert "1 more" in one_line(info)

    def test_a_missing_root(self, tmp_path, one_line):
        with pytest.raises(UserError) as info:
            MVTecAD(tmp_path / "nowhere").categories()
        message = one_line(info)
        assert "nowhere" in message
        assert "data download --root" in message

    def test_root_is_a_category(self, mvtec_root, one_line):
        with pytest.raises(UserError) as info:
            MVTecAD(mvtec_root / "bottle").categories()
        assert f"data.root={mvtec_root.resolve()} data.category=bottle" in one_line(info)

    def test_root_one_folder_too_high(self, mvtec_root, one_line):
        with pytest.raises(UserError) as info:
            MVTecAD(mvtec_root.parent).categories()
        assert f"data.root={mvtec_root}" in one_line(info)

    def test_root_without_category(self, tmp_path, one_line):
        with pytest.raises(UserError) as info:
            MVTecAD(tmp_path).categories()
        assert "train/good" in one_line(info)

    @pytest.mark.parametrize(
        ("emptied", "named"),
        [("train/good", "train/good"), ("test", "bottle/test")],
    )
    def test_empty_folders(self, mvtec_root, one_line, emptied, named):
        folder = mvtec_root / "bottle" / emptied
        shutil.rmtree(folder)
        folder.mkdir()
        with pytest.raises(UserError) as info:
            MVTecAD(mvtec_root).split("bottle")
        assert named in one_line(info)

    def test_no_test_folder(self, mvtec_root, one_line):
        shutil.rmtree(mvtec_root / "bottle" / "test")
        with pytest.raises(UserError) as info:
            MVTecAD(mvtec_root).split("bottle")
        assert str(mvtec_root / "bottle" / "test") in one_line(info)


class TestSelectCategories:
    @pytest.mark.parametrize(
        ("wanted", "names"),
        [
            ("bottle", ["bottle"]),
            ("all", ["bottle", "capsule", "carpet"]),
            ("textures", ["carpet"]),
            ("objects", ["bottle", "capsule"]),
            (["carpet", "bottle", "carpet"], ["carpet", "bottle"]),
            (("textures", "all"), ["carpet", "bottle", "capsule"]),
            (OmegaConf.create(["capsule", "bottle"]), ["capsule", "bottle"]),
        ],
    )
    def test_selection(self, mvtec_root, wanted, names):
        assert select_categories(MVTecAD(mvtec_root), wanted) == names

    def test_misspelt(self, mvtec_root, one_line):
        with pytest.raises(UserError) as info:
            select_categories(MVTecAD(mvtec_root), ["bottle", "capsul"])
        message = one_line(info)
        assert "'capsul'" in message
        assert "'capsule'?" in message
        assert "bottle, capsule, carpet" in message

    def test_nothing_near(self, mvtec_root, one_line):
        with pytest.raises(UserError) as info:
            select_categories(MVTecAD(mvtec_root), "xyzzy")
        assert "did you mean" not in one_line(info)

    def test_an_empty_group_and_an_empty_list(self, mvtec_root, one_line):
        source = MVTecAD(mvtec_root, textures=[])
        with pytest.raises(UserError, match=r"data\.category=textures"):
            select_categories(source, "textures")
        with pytest.raises(UserError, match=r"data\.category"):
            select_categories(source, [])

    def test_a_category_named_by_a_number(self, tmp_path):
        mvtec_category(tmp_path / "1")
        assert select_categories(MVTecAD(tmp_path), 1) == ["1"]


@pytest.fixture
def own_root(tmp_path):
    root = tmp_path / "screws"
    for i in range(10):
        write_image(root / "normal" / f"{i}.jpg")
    write_image(root / "defect" / "a.png")
    write_image(root / "defect" / "bent" / "b.png")
    write_mask(root / "masks" / "a.png")
    write_mask(root / "masks" / "bent" / "b_mask.BMP")
    return root


class TestFolder:
    def test_one_category(self, own_root):
        source = Folder(own_root)
        assert source.categories() == ["screws"]
        split = source.split("screws")
        assert len(split.train) + sum(s.label == 0 for s in split.test) == 10
        assert not {s.path for s in split.train} & {s.path for s in split.test}
        defects = [(s.path.name, s.defect, s.mask.name) for s in split.test if s.label]
        assert defects == [("a.png", "defect", "a.png"), ("b.png", "bent", "b_mask.BMP")]

    def test_a_relative_root(self, own_root, monkeypatch):
        monkeypatch.chdir(own_root)
        assert Folder(".").categories() == ["screws"]

    def test_several_categories(self, own_root):
        shutil.copytree(own_root, own_root.parent / "nuts")
        source = Folder(own_root.parent, textures=["nuts"])
        assert source.categories() == ["nuts", "screws"]
        assert select_categories(source, "textures") == ["nuts"]
        assert {s.category for s in source.split("nuts").test} == {"nuts"}

    def test_a_normal_test_folder_inside_normal(self, own_root):
        write_image(own_root / "normal" / "later" / "z.png")
        split = Folder(own_root, normal_test="normal/later").split("screws")
        assert len(split.train) == 10
        assert [s.path.name for s in split.test if not s.label] == ["z.png"]

    def test_without_masks_and_defects(self, own_root):
        shutil.rmtree(own_root / "masks")
        assert all(s.mask is None for s in Folder(own_root).split("screws").test)
        assert all(s.label == 0 for s in Folder(own_root, defect=None).split("screws").test)

    @pytest.mark.parametrize(
        ("damage", "named"),
        [
            (lambda r: shutil.rmtree(r / "normal"), "data.source.normal"),
            (lambda r: shutil.rmtree(r / "defect"), "data.source.defect"),
            (lambda r: (r / "defect" / "a.png").unlink(), "masks/a.png"),
            (lambda r: write_image(r / "defect" / "good" / "c.png"), "defect/good"),
            (
                lambda r: [p.unlink() for p in (r / "normal").glob("[1-9].jpg")],
                "data.source.normal_test",
            ),
            (lambda r: shutil.rmtree(r), "data.root"),
        ],
    )
    def test_errors(self, own_root, one_line, damage, named):
        damage(own_root)
        with pytest.raises(UserError) as info:
            Folder(own_root).split("screws")
        assert named in one_line(info)

    @pytest.mark.parametrize("second", ["a_mask.png", "a.tif"])
    def test_two_masks_of_an_image(self, own_root, one_line, second):
        write_mask(own_root / "masks" / second)
        with pytest.raises(UserError) as info:
            Folder(own_root).split("screws")
        assert "masks/a.png" in one_line(info) and f"masks/{second}" in one_line(info)

    @pytest.mark.parametrize(
        ("folders", "named"),
        [
            ({"normal": "."}, ("normal", "defect")),
            ({"defect": "linked", "masks": None}, ("normal", "defect")),
            ({"masks": "defect"}, ("defect", "masks")),
        ],
    )
    def test_a_file_with_two_roles(self, own_root, one_line, folders, named):
        (own_root / "linked").symlink_to("normal")
        with pytest.raises(UserError) as info:
            Folder(own_root, **folders).split("screws")
        assert all(f"data.source.{part}" in one_line(info) for part in named)

    def test_linked_normal_test_images_are_not_trained_on(self, own_root, tmp_path):
        write_image(own_root / "normal" / "later" / "z.png")
        (tmp_path / "link").symlink_to(own_root / "normal" / "later")
        split = Folder(own_root, normal_test=str(tmp_path / "link")).split("screws")
        assert "z.png" not in {sample.path.name for sample in split.train}

    def test_the_home_folder_and_a_name_that_starts_with_a_tilde(self, own_root, monkeypatch):
        monkeypatch.setenv("HOME", str(own_root))
        split = Folder(own_root, defect="~/defect", masks="~/masks").split("screws")
        assert sum(sample.mask is not None for sample in split.test) == 2
        odd = own_root.rename(own_root.with_name("~nobody-of-this-name"))
        monkeypatch.chdir(odd.parent)
        assert Folder(odd.name).categories() == [odd.name]

    @pytest.mark.parametrize("share", [0, 1, -0.1, 20])
    def test_share_out_of_range(self, own_root, share):
        with pytest.raises(UserError, match="normal_test_share"):
            Folder(own_root, normal_test_share=share)

    def test_empty_normal_test(self, own_root):
        with pytest.raises(UserError, match="normal_test"):
            Folder(own_root, normal_test="none").split("screws")


def test_the_held_out_share_is_about_right_and_stable(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(2000)]
    held_out = set(select_test_images(files, tmp_path, 0.2))
    assert 0.17 < len(held_out) / 2000 < 0.23
    fewer = files[:1500]
    assert set(select_test_images(fewer, tmp_path, 0.2)) == held_out & set(fewer)
    other_root = [Path("moved") / path.name for path in files]
    assert {p.name for p in select_test_images(other_root, Path("moved"), 0.2)} == {
        p.name for p in held_out
    }


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_at_least_one_normal_image_on_each_side(tmp_path, share):
    files = [tmp_path / f"{i}.png" for i in range(5)]
    assert len(select_test_images(files, tmp_path, share)) == (1 if share < 0.5 else 4)


class TestFingerprint:
    @pytest.fixture
    def fingerprint(self, mvtec_root):
        def compute(root=mvtec_root):
            return dataset_fingerprint(MVTecAD(root).split("bottle"), root)

        return compute

    def test_does_not_depend_on_the_root(self, mvtec_root, fingerprint):
        before = fingerprint()
        assert len(before) == 64
        shutil.copytree(mvtec_root, mvtec_root.parent / "copy")
        assert fingerprint(mvtec_root.parent / "copy") == before

    @pytest.mark.parametrize(
        "change",
        [
            lambda r: write_image(r / "train" / "good" / "000.png", value=7),
            lambda r: write_mask(r / "ground_truth" / "hole" / "000_mask.png", white=254),
            lambda r: write_image(r / "test" / "good" / "new.png"),
            lambda r: (r / "train/good/000.png").rename(r / "train/good/999.png"),
            lambda r: (r / "ground_truth" / "hole" / "001_mask.png").unlink(),
        ],
    )
    def test_changes_with_the_data(self, mvtec_root, fingerprint, change):
        before = fingerprint()
        change(mvtec_root / "bottle")
        assert fingerprint() != before

    def test_depends_on_the_split(self, own_root):
        low = Folder(own_root, normal_test_share=0.1).split("screws")
        high = Folder(own_root, normal_test_share=0.9).split("screws")
        assert dataset_fingerprint(low, own_root) != dataset_fingerprint(high, own_root)

    def test_a_missing_file(self, mvtec_root):
        split = MVTecAD(mvtec_root).split("bottle")
        split.train[0].path.unlink()
        with pytest.raises(UserError, match=r"000\.png"):
            dataset_fingerprint(split, mvtec_root)


def test_listing_categories_does_not_import_torch():
    code = (
        "import sys; from anomalib_rd.data import Folder, MVTecAD; sys.exit('torch' in sys.modules)"
    )
    assert run([sys.executable, "-c", code]).returncode == 0
