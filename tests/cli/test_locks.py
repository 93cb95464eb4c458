"""The locks of GPUs are in a folder that is the user's own."""

import os
import subprocess
import sys

import pytest

from anomalib_rd.cli import worker_setup as launching
from anomalib_rd.errors import UserError


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Runtime, cache and temporary folder of a user; no claim is left afterwards."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    (tmp_path / "tmp").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(launching, "_locks", [])
    yield tmp_path
    for lock in launching._locks:
        lock.release()


def modes(folder):
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}


def test_the_folder_is_the_users_runtime_folder_and_private(places):
    assert launching.claim_gpu(["0"]) == "0"
    assert modes(places / "runtime") == {"anomalib-rd": "0o700"}


def test_each_claim_takes_the_gpu_with_the_fewest_and_ends_with_its_process(places):
    code = "import sys; from anomalib_rd.cli.worker_setup import claim_gpu; "
    code += "print(claim_gpu(['0', '1']), flush=True); input()"
    word = [sys.executable, "-c", code]
    others = [subprocess.Popen(word, stdin=-1, stdout=-1, text=True) for _ in range(2)]
    try:
        assert {other.stdout.readline().strip() for other in others} == {"0", "1"}
        assert launching.claim_gpu(["0", "1"]) == "0"  # a second share of it
        others[1].kill()
        others[1].wait()
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert {launching.claim_gpu(["0", "1"]) for _ in range(2)} == {"0", "1"}


def test_a_name_with_slashes_is_a_file_in_the_folder(places):
    names = ["MIG-GPU-1234/1/0", "../../0"]
    assert [launching.claim_gpu([name]) for name in names] == names
    assert len(list((places / "runtime/anomalib-rd").glob("*-0.lock"))) == 2
    assert modes(places / "runtime") == {"anomalib-rd": "0o700"}


@pytest.mark.parametrize("how", ["link", "mode", "owner", "file"])
def test_a_folder_that_somebody_else_has_prepared_is_avoided(places, monkeypatch, how):
    prepared, victims = places / "runtime/anomalib-rd", places / "victims"
    victims.mkdir(mode=0o700)
    (victims / "0-0.lock").write_text("precious")
    if how == "link":
        prepared.symlink_to(victims)
    elif how == "file":
        prepared.write_text("precious")
    else:
        prepared.mkdir(mode=0o777 if how == "mode" else 0o700)
        prepared.chmod(0o777 if how == "mode" else 0o700)
        (prepared / "0-0.lock").symlink_to(victims / "0-0.lock")
    if how == "owner":
        monkeypatch.setattr(launching.os, "getuid", lambda: 12345)
        with pytest.raises(UserError, match="XDG_RUNTIME_DIR"):
            launching.claim_gpu(["0"])
    else:
        assert launching.claim_gpu(["0"]) == "0"
        (used,) = (places / "cache").rglob("*.lock")
        assert used.parent.stat().st_mode & 0o777 == 0o700
    assert (victims / "0-0.lock").read_text() == "precious"
    assert [path.name for path in victims.iterdir()] == ["0-0.lock"]


def test_a_lock_that_is_a_link_is_not_followed(places):
    folder, victim = places / "runtime/anomalib-rd", places / "victim"
    folder.mkdir(mode=0o700)
    victim.write_text("precious")
    (folder / "0-0.lock").symlink_to(victim)
    with pytest.raises(OSError, match=r"0-0\.lock"):
        launching.claim_gpu(["0"])
    assert victim.read_text() == "precious"


def test_without_a_runtime_folder_one_in_the_temporary_folder_must_be_the_users_too(
    places, monkeypatch
):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    victims = places / "victims"
    victims.mkdir(mode=0o700)
    (places / f"tmp/runtime-{os.getuid()}").symlink_to(victims)
    assert launching.claim_gpu(["0"]) == "0"
    assert not list(victims.iterdir())
