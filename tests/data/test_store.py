"""Arrays on disk: whole or absent, whoever writes, dies, damages or clears meanwhile."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from anomalib_rd.data import disk_cache as store
from anomalib_rd.data.disk_cache import ArrayStore

VALUES = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


@pytest.fixture
def shelf(tmp_path):
    return ArrayStore(tmp_path / "shelf")


def test_gives_back_what_was_kept(shelf):
    assert shelf.get("a", (3, 4, 5)) is None
    shelf.put("a", VALUES)
    shelf.put("b", VALUES[:, ::-1])
    assert np.array_equal(shelf.get("a", (3, 4, 5)), VALUES)
    assert np.array_equal(shelf.get("b", (3, 4, 5)), VALUES[:, ::-1])
    assert shelf.get("a", (4, 4, 5)) is None
    assert shelf.usage() == (2, 2 * (60 + store.CHECKSUM))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:2],
        lambda content: content[:-1],
        lambda content: content[:30],
        lambda content: content + b"\0",
        lambda content: content[:7] + bytes([content[7] ^ 1]) + content[8:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: bytes(len(content)),
    ],
)
def test_damaged_entry_counts_as_absent(shelf, damage):
    shelf.put("a", VALUES)
    (entry,) = shelf.folder.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert shelf.get("a", (3, 4, 5)) is None


def test_writer_killed_in_the_middle_leaves_the_old_entry(shelf):
    shelf.put("a", VALUES)
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from anomalib_rd.data import disk_cache as store

def die(part, entry):
    os.truncate(part, 7)
    os.kill(os.getpid(), signal.SIGKILL)

Path.replace = die
store.ArrayStore(Path(sys.argv[1])).put(sys.argv[2], np.ones((3, 4, 5), np.uint8))
"""
    for key in ("a", "b"):
        done = subprocess.run([sys.executable, "-c", code, str(shelf.folder), key])
        assert done.returncode == -signal.SIGKILL
    assert len(list(shelf.folder.iterdir())) == 3
    assert np.array_equal(shelf.get("a", (3, 4, 5)), VALUES)
    assert shelf.get("b", (3, 4, 5)) is None
    shelf.put("b", VALUES)
    assert np.array_equal(shelf.get("b", (3, 4, 5)), VALUES)
    assert shelf.usage()[0] == 2
    shelf.clear()
    assert list(shelf.folder.iterdir()) == []


def test_parts_left_for_a_day_are_removed_by_the_next_writer(shelf):
    shelf.folder.mkdir()
    old, new = (shelf.folder / f"{name}{store.PART}" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 2 * store.DAY,) * 2)
    shelf.put("a", VALUES)
    assert not old.exists()
    assert new.exists()


def test_clearing_leaves_what_is_not_an_entry(shelf):
    shelf.put("a", VALUES)
    (shelf.folder / "notes.txt").write_text("mine")
    assert shelf.clear() == (1, 60 + store.CHECKSUM)
    assert [path.name for path in shelf.folder.iterdir()] == ["notes.txt"]
    assert shelf.clear() == shelf.usage() == (0, 0)


def test_cleared_while_it_is_written(shelf, monkeypatch):
    whole = store._checksum

    def clear_meanwhile(values):
        monkeypatch.undo()
        shelf.clear()
        return whole(values)

    monkeypatch.setattr(store, "_checksum", clear_meanwhile)
    shelf.put("a", VALUES)
    assert shelf.get("a", (3, 4, 5)) is None
    shelf.put("a", VALUES)
    assert shelf.get("a", (3, 4, 5)) is not None


def hammer(folder, number, start):
    """In a process of its own: write and read the same keys as the others, in one's own value."""
    shelf, values = ArrayStore(folder), np.full((50, 1000), number, np.uint8)
    start.wait(60)
    for i in range(200):
        key = str(i % 5)
        shelf.put(key, values)
        found = shelf.get(key, values.shape)
        assert found is not None and found.min() == found.max()


def test_processes_write_and_read_the_same_keys_at_the_same_time(shelf):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=hammer, args=(shelf.folder, i, start)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(path.name for path in shelf.folder.iterdir()) == [
        f"{key}{store.ENTRY}" for key in range(5)
    ]
