"""Data workers with as little shared memory as in Docker."""

import pytest

from anomalib_rd.cli.errors import explain
from anomalib_rd.data import workers
from anomalib_rd.data.datamodule import AnomalyDataModule
from anomalib_rd.data.sources.layouts import MVTecAD
from anomalib_rd.data.workers import count_workers, needed_bytes
from anomalib_rd.errors import UserError

MIB = 2**20


@pytest.fixture
def free(monkeypatch):
    return lambda size: monkeypatch.setattr(workers, "free_shared_memory", lambda: size)


@pytest.mark.parametrize(
    ("size", "count"), [(64 * MIB, 7), (16 * MIB, 1), (15 * MIB, 0), (MIB, 0), (None, 8)]
)
def test_the_default_is_limited_by_shared_memory(free, caplog, size, count):
    free(size)
    assert count_workers(None, 8, 4 * MIB) == count
    assert len(caplog.messages) == (count < 8)
    assert all(f"data.num_workers: {count}," in text for text in caplog.messages)


def test_too_many_requested_workers_are_an_error(free, one_line):
    free(needed_bytes(4, MIB))
    assert count_workers(4, 8, MIB) == 4
    free(needed_bytes(4, MIB) - 1)
    with pytest.raises(UserError) as info:
        count_workers(4, 8, MIB)
    assert "data.num_workers=4" in one_line(info) and "--shm-size" in one_line(info)
    assert count_workers(0, 8, MIB) == 0


def test_the_data_module_counts_workers(free, tmp_path):
    from small_data import make_mvtec

    source = MVTecAD(make_mvtec(tmp_path, categories=("cloth",)))
    free(MIB)
    sizes = {"image_size": (256, 256), "train_batch_size": 16}
    assert AnomalyDataModule(source, "cloth", **sizes).train_dataloader().num_workers == 0
    with pytest.raises(UserError, match="num_workers=2"):
        AnomalyDataModule(source, "cloth", num_workers=2, **sizes)
    data = AnomalyDataModule(
        source, "cloth", (64, 64), train_batch_size=2, test_batch_size=2, num_workers=2
    )
    assert data.train_dataloader().num_workers == 2


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's"
        " workers are out of shared memory. Please try to raise your shared memory limit.",
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback ...\n"
        "RuntimeError: unable to write to file </torch_7_1_0>: No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_7>: No space left on device (28)",
        "unable to mmap 64 bytes from file </torch_7_2>: No space left on device (28)",
    ],
)
def test_shared_memory_errors_are_explained_in_one_line(text):
    line = explain(RuntimeError(text))
    assert "--shm-size" in line and "data.num_workers=0" in line and "\n" not in line


def test_other_errors_are_not_explained():
    assert explain(RuntimeError("CUDA out of memory")) is None
