"""Every layout follows links once and skips hidden and system folders."""

import os
import shutil

import pytest
from image_trees import mvtec_category, write_image, write_mask
from PIL import Image

from anomalib_rd.data.dataset_check import NOTE, WARNING, check_category
from anomalib_rd.data.sources.files import distinct_subfolders, list_images, walk
from anomalib_rd.data.sources.folder import Folder
from anomalib_rd.data.sources.layouts import MVTecAD, MVTecLOCO
from anomalib_rd.data.sources.unused_files import find_unused
from anomalib_rd.errors import UserError
from anomalib_rd.inference.predict import find_images
from anomalib_rd.results.files import expand_home, printable

SYSTEM_FOLDERS = (".ipynb_checkpoints", ".thumbnails", "__MACOSX", "@eaDir", "$RECYCLE.BIN")


def names(paths, top):
    return [path.relative_to(top).as_posix() for path in paths]


@pytest.fixture
def tree(tmp_path):
    """Images in ``in/a``, ``in/a/b``, ``out/c`` and ``out/c/d``."""
    for part in ("in/a/1.png", "in/a/b/2.png", "out/c/3.png", "out/c/d/4.png"):
        write_image(tmp_path / part)
    return tmp_path


class TestWalk:
    def test_links_to_folders_are_followed(self, tree):
        (tree / "in" / "link").symlink_to(tree / "out")
        found = names(list_images(tree / "in", recursive=True), tree / "in")
        assert found == ["a/1.png", "a/b/2.png", "link/c/3.png", "link/c/d/4.png"]

    @pytest.mark.parametrize("target", [".", "..", "../..", "/"])
    def test_a_link_to_a_parent_is_not_followed(self, tree, target):
        (tree / "in" / "a" / "up").symlink_to(target)
        contents = walk(tree / "in")
        assert names(contents.images, tree / "in") == ["a/1.png", "a/b/2.png"]
        assert contents.repeated == [tree / "in" / "a" / "up"]

    def test_a_folder_is_read_once_under_its_own_name(self, tree):
        for name, target in (("0", "a"), ("a/0", "../a/b"), ("z", "../out/c/d"), ("y", "../out")):
            (tree / "in" / name).symlink_to(target)
        contents = walk(tree / "in")
        assert len(contents.images) == 4
        assert {"a/1.png", "a/b/2.png"} <= set(names(contents.images, tree / "in"))
        real = [os.path.realpath(path) for path in contents.images]
        assert len(set(real)) == 4

    def test_two_folders_that_link_to_each_other(self, tree):
        (tree / "in" / "a" / "other").symlink_to(tree / "out")
        (tree / "out" / "c" / "back").symlink_to(tree / "in")
        assert len(list_images(tree / "in", recursive=True)) == 4

    @pytest.mark.parametrize("name", SYSTEM_FOLDERS)
    def test_system_folders_are_skipped_but_may_contain_the_root(self, tree, name):
        write_image(tree / name / "x.png")
        write_image(tree / "in" / name / "deep" / "x.png")
        contents = walk(tree / "in")
        assert len(contents.images) == 2
        assert contents.hidden == [tree / "in" / name]
        assert len(list_images(tree / name)) == 1

    def test_other_hidden_and_broken_files_are_listed(self, tree):
        for name in ("x.heic", "x.npy", "noextension", "Thumbs.db", "._1.png"):
            (tree / "in" / name).write_bytes(b"?")
        (tree / "in" / "gone.png").symlink_to("nowhere")
        contents = walk(tree / "in", recursive=False)
        assert names(contents.others, tree / "in") == ["noextension", "x.heic", "x.npy"]
        assert names(contents.hidden, tree / "in") == ["._1.png", "Thumbs.db"]
        assert names(contents.broken, tree / "in") == ["gone.png"]

    def test_an_unreadable_folder(self, tree, monkeypatch, one_line):
        def refuse(self):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr("pathlib.Path.iterdir", refuse)
        with pytest.raises(UserError) as info:
            walk(tree / "in")
        assert str(tree / "in") in one_line(info)

    def test_distinct_subfolders(self, tree):
        for name, target in (("0", "a"), ("up", ".."), ("far", "../out")):
            (tree / "in" / name).symlink_to(target)
        assert names(distinct_subfolders(tree / "in"), tree / "in") == ["a", "far"]


@pytest.fixture
def parts(tmp_path):
    """The free layout, and folders of more images and a second defect next to it."""
    for i in range(4):
        write_image(tmp_path / "parts" / "normal" / f"{i}.png")
        write_image(tmp_path / "day2" / f"{i}.png", value=i)
    for part in ("defect/crack/0.png", "defect/crack/1.png"):
        write_image(tmp_path / "parts" / part)
        write_mask(tmp_path / "parts" / part.replace("defect", "masks"))
    write_image(tmp_path / "hole" / "7.png")
    write_mask(tmp_path / "truth" / "7_mask.png")
    return tmp_path / "parts"


class TestLayouts:
    def test_linked_folders_in_the_free_layout(self, parts):
        for name, target in (("normal/day2", "day2"), ("defect/hole", "hole"), ("masks/hole", "t")):
            (parts / name).symlink_to(parts.parent / target.replace("t", "truth"))
        split = Folder(parts).split("parts")
        assert len(split.train) + sum(not s.label for s in split.test) == 8
        defects = [(s.defect, s.path.name, s.mask and s.mask.name) for s in split.test if s.label]
        assert defects[-1] == ("hole", "7.png", "7_mask.png")

    def test_a_linked_defect_type_in_mvtecs_layout(self, tmp_path):
        folder = mvtec_category(tmp_path / "bottle")
        for part in ("test", "ground_truth"):
            (folder / part / "hole").rename(tmp_path / part)
            (folder / part / "hole").symlink_to(tmp_path / part)
        test = MVTecAD(tmp_path).split("bottle").test
        assert [s.mask is not None for s in test if s.defect == "hole"] == [True, True]

    def test_a_link_to_a_defect_type_is_not_another_one(self, tmp_path):
        folder = mvtec_category(tmp_path / "bottle")
        for part in ("test", "ground_truth"):
            (folder / part / "again").symlink_to("hole")
        kinds = {s.defect for s in MVTecAD(tmp_path).split("bottle").test}
        assert kinds == {"good", "crack", "hole"}

    @pytest.mark.parametrize("name", SYSTEM_FOLDERS)
    def test_a_system_folder_is_no_category_defect_type_or_image(self, parts, tmp_path, name):
        before = Folder(parts).split("parts")
        for part in ("normal", "defect", "defect/crack", "masks"):
            write_image(parts / part / name / "x.png")
        assert Folder(parts).split("parts") == before
        notes = [f for f in check_category(Folder(parts), "parts").findings if name in f.text]
        assert [finding.severity for finding in notes] == [NOTE]
        folder = mvtec_category(tmp_path / "root" / "bottle")
        before = MVTecAD(tmp_path / "root").split("bottle")
        shutil.copytree(folder, tmp_path / "root" / name)
        for part in ("train/good", "test", "test/hole", "ground_truth"):
            write_image(folder / part / name / "x.png")
        assert MVTecAD(tmp_path / "root").categories() == ["bottle"]
        assert MVTecAD(tmp_path / "root").split("bottle") == before


def texts(source, category):
    return [kind.text for kind in find_unused(source, category, source.split(category))]


class TestFindUnused:
    def test_nothing_in_a_valid_data_set(self, tmp_path):
        folder = mvtec_category(tmp_path / "bottle")
        write_image(folder / "ground_truth" / "good" / "000.png")
        (folder / "license.txt").write_text("free")
        (folder / "LICENSE").write_text("free")
        (folder / "defects_config.json").write_text("{}")
        write_mask(tmp_path / "bag" / "ground_truth/logical_anomalies/0/000.png")
        for part in (
            "train/good/0",
            "validation/good/0",
            "test/good/0",
            "test/logical_anomalies/0",
        ):
            write_image(tmp_path / "bag" / f"{part}.png")
        assert texts(MVTecAD(tmp_path), "bottle") == []
        assert texts(MVTecLOCO(tmp_path), "bag") == []

    def test_misplaced_images_are_reported_by_folder(self, tmp_path):
        folder = mvtec_category(tmp_path / "bottle")
        write_image(folder / "test" / "loose.png")
        write_image(folder / "train" / "good" / "day1" / "deep.png")
        write_image(folder / "train" / "good" / "day1" / "deep2.png")
        loose, deep = texts(MVTecAD(tmp_path), "bottle")
        assert deep.startswith("2 images") and str(folder / "train" / "good" / "day1") in deep
        assert loose.startswith("1 image ") and str(folder / "test") in loose
        findings = check_category(MVTecAD(tmp_path), "bottle").findings
        assert (
            sum(f.severity == WARNING and f.path.parent == folder / "test" for f in findings) == 1
        )

    def test_unsupported_files_are_counted_in_one_line(self, parts):
        for name in ("a.heic", "b.HEIC", "c.npy", "notes.txt"):
            (parts / "normal" / name).write_bytes(b"?")
        write_image(parts / "normal" / "d.png").rename(parts / "normal" / "noextension")
        (line,) = texts(Folder(parts), "parts")
        assert line.startswith("4 ") and ".heic (2), .npy (1), no extension (1)" in line

    def test_annotation_files_are_reported(self, parts):
        (parts / "masks" / "crack" / "0.json").write_text("{}")
        (line,) = texts(Folder(parts), "parts")
        assert ".json (1)" in line

    def test_a_broken_link_is_reported(self, parts):
        (parts / "normal" / "gone.png").symlink_to("nowhere")
        (line,) = texts(Folder(parts), "parts")
        assert "gone.png" in line

    @pytest.mark.parametrize("part", ["normal", "defect"])
    def test_the_error_of_an_empty_folder_names_its_files(self, parts, one_line, part):
        shutil.rmtree(parts / part)
        (parts / part).mkdir()
        (parts / part / "x.heic").write_bytes(b"?")
        with pytest.raises(UserError) as info:
            Folder(parts, masks=None).split("parts")
        assert ".heic (1)" in one_line(info)

    def test_the_error_of_images_that_are_too_deep(self, tmp_path, one_line):
        folder = mvtec_category(tmp_path / "bottle")
        (folder / "train" / "good").rename(tmp_path / "day1")
        (folder / "train" / "good").mkdir()
        (tmp_path / "day1").rename(folder / "train" / "good" / "day1")
        with pytest.raises(UserError) as info:
            MVTecAD(tmp_path).split("bottle")
        assert "day1" in one_line(info)


@pytest.mark.parametrize("name", ["a.pgm", "a.ppm", "a.PGM", "a.jfif", "a.JPE", "a.gif", "a.dib"])
def test_all_extensions_of_supported_formats(tmp_path, name):
    from anomalib_rd.data.images import load_image

    kind = {"pgm": "PPM", "ppm": "PPM", "jfif": "JPEG", "jpe": "JPEG", "gif": "GIF", "dib": "BMP"}
    Image.new("L", (6, 4), 200).save(tmp_path / name, format=kind[name[2:].lower()])
    assert list_images(tmp_path) == [tmp_path / name]
    assert load_image(tmp_path / name).getpixel((0, 0)) == (200, 200, 200)


class TestPredict:
    def test_a_folder(self, tree, caplog):
        (tree / "in" / "link").symlink_to(tree / "out")
        (tree / "in" / "up").symlink_to(".")
        write_image(tree / "in" / ".thumbnails" / "x.png")
        (tree / "in" / "a" / "x.heic").write_bytes(b"?")
        assert len(find_images([str(tree / "in")])) == 4
        messages = "\n".join(caplog.messages)
        assert ".heic (1)" in messages and ".thumbnails" in messages

    def test_a_pattern(self, tree):
        (tree / "in" / "a" / "up").symlink_to("..")
        for name in ("__MACOSX", ".thumbnails"):
            write_image(tree / "in" / name / "x.png")
        found = find_images([f"{tree}/in/**/*.png"])
        assert names(found, tree / "in") == ["a/1.png", "a/b/2.png"]
        assert len(find_images([f"{tree}/in/__MACOSX/*.png"])) == 1

    def test_the_error_of_a_folder_without_images(self, tmp_path, one_line):
        (tmp_path / "x.heic").write_bytes(b"?")
        with pytest.raises(UserError) as info:
            find_images([str(tmp_path)])
        assert ".heic (1)" in one_line(info)


def test_a_name_that_starts_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home("~/parts") == tmp_path / "parts"
    assert str(expand_home("~no-user-of-this-name/parts")) == "~no-user-of-this-name/parts"


def test_printable_is_utf8_whatever_the_name():
    assert printable(os.fsdecode(b"a/\xfc.png")) == r"a/\xfc.png"
    assert printable("größe") == "größe"
