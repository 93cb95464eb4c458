"""Disks that are full or read-only: one line, no partial file, and the run can be resumed.

Real ones, small and in memory, where this process may mount them.
"""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "results"))
from fake_runs import fake_run

from anomalib_rd.cli import main
from anomalib_rd.cli.errors import explain_os_error
from anomalib_rd.cli.report import write_report_page
from anomalib_rd.cli.sweep import SweepCallback
from anomalib_rd.data.disk_cache import ArrayStore
from anomalib_rd.data.image_cache import ImageCache
from anomalib_rd.data.images import read_pair
from anomalib_rd.results.files import write_atomically
from anomalib_rd.results.record import read_record

BIG = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
WRITERS = {
    "checkpoint": lambda file: torch.save({"a": torch.from_numpy(BIG)}, file),
    "curves": lambda file: np.savez_compressed(file, allow_pickle=False, a=BIG),
    "picture": lambda file: Image.fromarray(BIG).save(file, format="PNG"),
    "text": lambda file: file.write(b"a" * BIG.size),
}


@pytest.fixture
def disk(tmp_path):
    """Mount a disk of a size, or again with other options; gives its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options, again=False):
        how = f"remount,{options}" if again else options
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)]
        if (
            shutil.which("mount") is None
            or subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0
        ):
            pytest.skip("this process may not mount a disk")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def train(mvtec_root, capfd):
    """Train in a folder by the command line; gives status, output and the lines of errors."""

    def start(folder, *words):
        words = ["data=mvtec", f"data.root={mvtec_root}", "data.category=cloth", *words]
        words += [
            "data.image_size=[64,64]",
            "data.num_workers=0",
            "trainer=cpu",
            "report.html=false",
        ]
        words += ["trainer.max_epochs=2", "callbacks.checkpoint.every_s=0", "logger=none"]
        capfd.readouterr()
        status = main(["train", *words, f"hydra.run.dir={folder}"])
        out, err = capfd.readouterr()
        return status, out, err.strip().splitlines()

    return start


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_whatever_is_written_a_full_disk_is_named_and_the_old_file_stays(disk, write):
    path = disk("size=64k") / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left") as told:
        write_atomically(path, write)
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old" and [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_run_on_a_full_disk_resumes_when_there_is_space(disk, train):
    top = disk("size=45m")  # one checkpoint, and not a second beside it
    status, _, (line,) = train(top / "run")
    kept = top / "run/checkpoints/last.ckpt"
    assert status == 2 and str(kept) in line and "no space left" in line
    assert torch.load(kept, weights_only=True)["epoch"] == 0
    assert not list(top.rglob("*.tmp")) and not (top / "run/result.json").exists()
    disk("size=200m", again=True)
    assert train(top / "run")[0] == 0
    assert read_record(top / "run")["protocol"]["resumed_from_epoch"] == 1


def test_a_read_only_disk_is_one_line(disk, train):
    top = disk("size=1m")
    disk("ro", again=True)
    status, _, (line,) = train(top / "run")
    assert status == 2 and str(top / "run") in line and "Read-only file system" in line


def test_a_report_that_cannot_be_written_is_one_line(disk, tmp_path, capfd):
    top = disk("size=1m")
    fake_run(top / "run")
    disk("ro", again=True)
    assert main(["report", str(top), "--html"]) == 2
    assert "Read-only file system" in capfd.readouterr().err.strip().splitlines()[-1]
    assert write_report_page(top) == ""
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "Read-only file system" in line


def test_a_multiruns_report_that_cannot_be_written_is_one_line_and_status_2(disk, capfd):
    top = disk("size=1m")
    fake_run(top / "run")
    disk("ro", again=True)
    end = SweepCallback()
    end.runs = ["run"]
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(top)}}, "report": {"html": False}})
    with pytest.raises(SystemExit) as stop:
        end.on_multirun_end(config)
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert "Read-only file system" in line


def test_images_are_read_without_the_cache_where_its_disk_is_full(disk, tmp_path, caplog):
    cache = ImageCache(ArrayStore(disk("size=64k") / "decoded"))
    for name in ("a.png", "b.png"):
        Image.fromarray(BIG).save(tmp_path / name)
        image, _ = cache.read(tmp_path / name, None, (256, 256))
        assert torch.equal(image, read_pair(tmp_path / name, None, (256, 256))[0])
    (record,) = caplog.records
    assert "No space left" in record.getMessage()
    assert not [path for path in cache.store.folder.iterdir() if path.suffix != ".u8"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOTDIR])
def test_errors_of_a_disk_name_the_path(code):
    line = explain_os_error(OSError(code, "No", "/there"))
    assert line.startswith("/there: No; ")
    assert explain_os_error(OSError(errno.EPIPE, "No", "/there")) is None
    assert explain_os_error(OSError(errno.EDQUOT, "No")) is not None
