"""Usable cores, other trainings, and warnings about busy cores."""

import os
import subprocess
import sys
import time

import psutil
import pytest
import torch

from anomalib_rd import cores
from anomalib_rd.cli import status
from anomalib_rd.results.sweeps import Running, RunState


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Write the files of control groups and this process's membership; gives the root folder."""

    def write(membership, **files):
        texts = {"proc/self/cgroup": membership}
        texts |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return write


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/slurm/job_1/step_0\n", {"slurm/job_1/cpu.max": "300000 100000"}, 3),
        (
            "0::/slurm/job_1\n",
            {"slurm/job_1/cpu.max": "600000 100000", "slurm/cpu.max": "400000 100000"},
            4,
        ),
        (
            "5:memory:/a\n3:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"},
            2,
        ),
        (
            "3:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            8,
        ),
        ("0::/\n", {"cpu.max": "rubbish"}, 8),
    ],
)
def test_affinity_and_control_groups_limit_the_cores(cgroup, membership, files, expected):
    assert cores.usable_cores(cgroup(membership, **files)) == expected


def test_affinity_without_control_groups(cgroup, tmp_path):
    assert cores.usable_cores(tmp_path) == 8


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/env/bin/python", "/env/bin/anomalib-rd", "train", "-m"], True),
        (["python3", "-m", "anomalib_rd", "train"], True),
        (["anomalib-rd", "train"], True),
        (["python", "/env/bin/anomalib-rd", "status", "train"], False),
        (["vim", "train"], False),
        (["git", "clone", "anomalib-rd"], False),
        ([], False),
    ],
)
def test_a_training_is_recognised_by_its_command_line(command, expected):
    assert cores.is_training(command) == expected


@pytest.fixture
def other():
    """The process ID of another training with two threads, which computes all the time."""
    code = "while True: pass"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "anomalib-rd", "train"],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    time.sleep(0.2)
    yield process.pid
    process.kill()
    process.wait()


def test_another_training_is_found_with_its_usage(other, monkeypatch):
    assert other in cores.find_other_trainings() and os.getpid() not in cores.find_other_trainings()
    assert cores.thread_count(other) == 2
    assert cores.cores_used([other]) == 2  # a young process counts with all its threads
    monkeypatch.setattr(cores, "YOUNG", 0)
    assert 0 < cores.cores_used([other]) < 1.5
    assert 0 <= cores.idle_cores() <= len(psutil.Process().cpu_affinity()) - 0.1


@pytest.fixture
def cpu(monkeypatch):
    """A machine of two cores, all idle; restores the threads of torch."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(cores, "idle_cores", lambda: 2.0)
    monkeypatch.setattr(cores, "find_other_trainings", list)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    cores.warn_if_cores_busy.cache_clear()
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    cores.warn_if_cores_busy.cache_clear()


def test_torch_gets_at_most_one_thread_per_core_without_omp_num_threads(cpu, monkeypatch):
    torch.set_num_threads(3)
    cores.limit_threads("auto")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    cores.limit_threads("auto")
    assert torch.get_num_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(3)
    cores.limit_threads("auto")
    assert torch.get_num_threads() == 3


def test_one_warning_about_busy_cores(cpu, monkeypatch, caplog):
    torch.set_num_threads(2)
    cores.limit_threads("auto")
    assert not caplog.records  # no other training
    cores.warn_if_cores_busy.cache_clear()
    monkeypatch.setattr(cores, "find_other_trainings", lambda: [17])
    monkeypatch.setattr(cores, "cores_used", lambda pids: 2.0)
    for _ in range(2):
        cores.limit_threads("auto")
    (record,) = caplog.records
    assert "OMP_NUM_THREADS=1" in record.getMessage() and "17" in record.getMessage()


@pytest.mark.parametrize("why", ["one thread", "OMP_NUM_THREADS", "on a GPU"])
def test_no_warning_about_busy_cores(cpu, monkeypatch, caplog, why):
    monkeypatch.setattr(cores, "idle_cores", lambda: 0.0)
    torch.set_num_threads(1 if why == "one thread" else 2)
    if why == "OMP_NUM_THREADS":
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: why == "on a GPU")
    cores.limit_threads("auto")
    assert not caplog.records


@pytest.mark.parametrize(
    ("used", "each", "count", "warns"),
    [(2.0, 2, 2, True), (2.0, 1, 2, False), (0.5, 2, 2, False), (2.0, 2, 1, False)],
)
def test_status_warns_about_crowded_cores(monkeypatch, used, each, count, warns):
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(cores, "thread_count", lambda pid: each)
    monkeypatch.setattr(cores, "cores_used", lambda pids: used)
    states = [
        RunState(str(pid), "running", Running(pid, 0.0, status.gethostname(), 0.0))
        for pid in range(count)
    ]
    elsewhere = RunState("x", "running", Running(9, 0.0, "elsewhere", 0.0))
    line = status.oversubscription_warning([*states, elsewhere])
    assert bool(line) == warns and (not warns or "OMP_NUM_THREADS=1" in line)
