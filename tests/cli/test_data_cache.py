"""``anomalib-rd data cache``: what the cache folder holds, and emptying it."""

import numpy as np
import pytest

from anomalib_rd.cli import main
from anomalib_rd.data.disk_cache import ArrayStore, open_image_store
from anomalib_rd.data.sources.demo import VERSION


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder with two decoded images, a demo data set of one file, and a stranger."""
    monkeypatch.setenv("ANOMALIB_RD_CACHE", str(tmp_path / "cache"))
    store = open_image_store()
    for key in ("a", "b"):
        store.put(key, np.zeros((3, 512, 512), np.uint8))
    (tmp_path / "cache" / VERSION / "chip").mkdir(parents=True)
    (tmp_path / "cache" / VERSION / "chip" / "000.png").write_bytes(bytes(1 << 20))
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    return tmp_path / "cache"


def test_shows_where_it_is_and_what_it_holds(folder, capsys):
    assert main(["data", "cache"]) == 0
    place, images, demo = capsys.readouterr().out.splitlines()
    assert place == str(folder)
    assert images.split() == ["decoded", "images", "2", "files,", "1.5", "MiB"]
    assert demo.split() == ["demo", "data", "set", "1", "file,", "1.0", "MiB"]
    assert open_image_store().usage()[0] == 2


def test_clear_removes_the_decoded_images_alone(folder, capsys):
    assert main(["data", "cache", "--clear"]) == 0
    assert "2 files, 1.5 MiB" in capsys.readouterr().out
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == {f"{VERSION}/chip/000.png", "notes.txt"}


def test_folder_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ANOMALIB_RD_CACHE", str(tmp_path / "none"))
    assert main(["data", "cache"]) == main(["data", "cache", "--clear"]) == 0
    assert capsys.readouterr().out.count("0 files, 0 B") == 3
    assert not (tmp_path / "none").exists()


def test_no_right_to_clear_is_one_line(folder, monkeypatch, capsys):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(folder / "x"))

    monkeypatch.setattr(ArrayStore, "clear", refuse)
    assert main(["data", "cache", "--clear"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and str(folder / "x") in told and "Permission denied" in told
