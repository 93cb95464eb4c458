"""The data loaders of a run: workers, pinned memory and random numbers."""

import os
from types import SimpleNamespace

import pytest
import torch
from small_data import make_mvtec

from anomalib_rd.data import AnomalyDataModule, MVTecAD


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_mvtec(tmp_path_factory.mktemp("mvtec"), categories=("cloth",), good=4)


@pytest.fixture
def module(root):
    """``module(processes=2, num_workers=8)``: a data module with Lightning's trainer."""

    def make(processes=1, rank=0, device="cpu", **options):
        data = AnomalyDataModule(MVTecAD(root), "cloth", (64, 64), **options)
        data.trainer = SimpleNamespace(
            num_devices=processes,
            world_size=processes,
            global_rank=rank,
            strategy=SimpleNamespace(root_device=torch.device(device)),
            fit_loop=SimpleNamespace(
                epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=0))
            ),
        )
        return data

    return make


def loaders(data):
    return [data.train_dataloader(), data.test_dataloader(), data.ordered_train_dataloader()]


@pytest.mark.parametrize(
    ("num_workers", "processes", "each"), [(8, 8, 1), (8, 1, 8), (8, 3, 3), (1, 2, 1), (0, 2, 0)]
)
def test_processes_share_the_workers(module, num_workers, processes, each):
    data = module(processes, num_workers=num_workers)
    assert [loader.num_workers for loader in loaders(data)] == [each] * 3


@pytest.mark.parametrize(
    ("cores", "processes", "each"), [(64, 8, 7), (128, 8, 8), (16, 1, 8), (4, 1, 3), (2, 2, 0)]
)
def test_processes_share_the_cores(module, monkeypatch, cores, processes, each):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    data = module(processes)
    assert [loader.num_workers for loader in loaders(data)] == [each] * 3


@pytest.mark.parametrize(("threads", "workers"), [("4", 4), ("1", 1), ("64", 8), ("", 8)])
def test_thread_limits_limit_the_workers(module, monkeypatch, threads, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert [loader.num_workers for loader in loaders(module(1))] == [workers] * 3


def test_memory_is_pinned_on_gpus_only(module, monkeypatch, root):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not any(loader.pin_memory for loader in loaders(module(device="cpu")))
    assert all(loader.pin_memory for loader in loaders(module(device="cuda:0")))
    alone = AnomalyDataModule(MVTecAD(root), "cloth", (64, 64))
    assert not alone.train_dataloader().pin_memory


def test_each_process_has_its_own_random_numbers(module):
    """Otherwise a random transform would change the images of every process alike."""
    seeds = [module(2, rank, seed=3).train_dataloader().generator.initial_seed() for rank in (0, 1)]
    assert seeds[0] == 3 != seeds[1]
    again = module(2, 1, seed=3).train_dataloader().generator.initial_seed()
    assert again == seeds[1] != module(2, 1, seed=4).train_dataloader().generator.initial_seed()
