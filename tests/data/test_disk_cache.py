"""Entries of the array store are complete or missing, whatever happens to their writers."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from anomalib_rd.data import disk_cache
from anomalib_rd.data.disk_cache import ArrayStore

VALUES = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


@pytest.fixture
def store(tmp_path):
    return ArrayStore(tmp_path / "store")


def test_returns_what_was_stored(store):
    assert store.get("a", (3, 4, 5)) is None
    store.put("a", VALUES)
    store.put("b", VALUES[:, ::-1])
    assert np.array_equal(store.get("a", (3, 4, 5)), VALUES)
    assert np.array_equal(store.get("b", (3, 4, 5)), VALUES[:, ::-1])
    assert store.get("a", (4, 4, 5)) is None
    assert store.usage() == (2, 2 * (60 + disk_cache.CHECKSUM_BYTES))


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
def test_a_damaged_entry_counts_as_missing(store, damage):
    store.put("a", VALUES)
    (entry,) = store.folder.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert store.get("a", (3, 4, 5)) is None


def test_a_killed_writer_does_not_damage_the_old_entry(store):
    store.put("a", VALUES)
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from anomalib_rd.data import disk_cache

def die(part, entry):
    os.truncate(part, 7)
    os.kill(os.getpid(), signal.SIGKILL)

Path.replace = die
disk_cache.ArrayStore(Path(sys.argv[1])).put(sys.argv[2], np.ones((3, 4, 5), np.uint8))
"""
    for key in ("a", "b"):
        done = subprocess.run([sys.executable, "-c", code, str(store.folder), key])
        assert done.returncode == -signal.SIGKILL
    assert len(list(store.folder.iterdir())) == 3
    assert np.array_equal(store.get("a", (3, 4, 5)), VALUES)
    assert store.get("b", (3, 4, 5)) is None
    store.put("b", VALUES)
    assert np.array_equal(store.get("b", (3, 4, 5)), VALUES)
    assert store.usage()[0] == 2
    store.clear()
    assert list(store.folder.iterdir()) == []


def test_the_next_writer_removes_parts_older_than_a_day(store):
    store.folder.mkdir()
    old, new = (store.folder / f"{name}{disk_cache.PART}" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 2 * disk_cache.DAY,) * 2)
    store.put("a", VALUES)
    assert not old.exists()
    assert new.exists()


def test_clear_keeps_other_files(store):
    store.put("a", VALUES)
    (store.folder / "notes.txt").write_text("mine")
    assert store.clear() == (1, 60 + disk_cache.CHECKSUM_BYTES)
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]
    assert store.clear() == store.usage() == (0, 0)


def test_clear_during_a_write(store, monkeypatch):
    checksum = disk_cache._checksum

    def clear_first(values):
        monkeypatch.undo()
        store.clear()
        return checksum(values)

    monkeypatch.setattr(disk_cache, "_checksum", clear_first)
    store.put("a", VALUES)
    assert store.get("a", (3, 4, 5)) is None
    store.put("a", VALUES)
    assert store.get("a", (3, 4, 5)) is not None


def hammer(folder, number, start):
    """Write and read the keys of the other processes, each with its own value."""
    store, values = ArrayStore(folder), np.full((50, 1000), number, np.uint8)
    start.wait(60)
    for i in range(100):
        key = str(i % 5)
        store.put(key, values)
        stored = store.get(key, values.shape)
        assert stored is not None and stored.min() == stored.max()


def test_processes_share_keys_concurrently(store):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=hammer, args=(store.folder, i, start)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(path.name for path in store.folder.iterdir()) == [
        f"{key}{disk_cache.ENTRY}" for key in range(5)
    ]
