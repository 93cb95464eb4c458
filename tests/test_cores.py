"""How many cores there are for a run, and who else uses them."""

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
    """Write files below a control group's mount, and this process's membership."""

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
def test_the_cores_are_those_that_affinity_and_control_groups_allow(
    cgroup, membership, files, expected
):
    assert cores.usable_cores(cgroup(membership, **files)) == expected


def test_without_control_groups_affinity_alone_counts(cgroup, tmp_path):
    assert cores.usable_cores(tmp_path) == 8


@pytest.mark.parametrize(
    ("command", "found"),
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
def test_a_training_is_known_by_its_command_line(command, found):
    assert cores.is_training(command) == found


@pytest.fixture
def other():
    """Another training, as its command line says, that computes all the time; with two threads."""
    code = "while True: pass"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "anomalib-rd", "train"],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    time.sleep(0.2)
    yield process.pid
    process.kill()
    process.wait()


def test_another_training_is_found_with_what_it_uses(other, monkeypatch):
    assert other in cores.other_trainings() and os.getpid() not in cores.other_trainings()
    assert cores.threads_of(other) == 2
    assert cores.used_by([other]) == 2  # young: what it will use
    monkeypatch.setattr(cores, "YOUNG", 0)
    assert 0 < cores.used_by([other]) < 1.5
    assert 0 <= cores.idle_cores() <= len(psutil.Process().cpu_affinity()) - 0.1


@pytest.fixture
def cpu(monkeypatch):
    """A machine of two cores, all idle; restores the threads of torch."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(cores, "idle_cores", lambda: 2.0)
    monkeypatch.setattr(cores, "other_trainings", list)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    cores.warn_if_cores_busy.cache_clear()
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    cores.warn_if_cores_busy.cache_clear()


def test_torch_has_no_more_threads_than_there_are_cores_unless_the_user_says_so(cpu, monkeypatch):
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


def test_busy_cores_are_named_once_with_the_way_out(cpu, monkeypatch, caplog):
    torch.set_num_threads(2)
    cores.limit_threads("auto")
    assert not caplog.records  # nobody else is there
    cores.warn_if_cores_busy.cache_clear()
    monkeypatch.setattr(cores, "other_trainings", lambda: [17])
    monkeypatch.setattr(cores, "used_by", lambda pids: 2.0)
    for _ in range(2):
        cores.limit_threads("auto")
    (record,) = caplog.records
    assert "OMP_NUM_THREADS=1" in record.getMessage() and "17" in record.getMessage()


@pytest.mark.parametrize("why", ["one thread", "said by the user", "on a GPU"])
def test_busy_cores_are_no_matter_to_a_run_that_does_not_crowd_them(cpu, monkeypatch, caplog, why):
    monkeypatch.setattr(cores, "idle_cores", lambda: 0.0)
    torch.set_num_threads(1 if why == "one thread" else 2)
    if why == "said by the user":
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: why == "on a GPU")
    cores.limit_threads("auto")
    assert not caplog.records


@pytest.mark.parametrize(
    ("used", "each", "count", "said"),
    [(2.0, 2, 2, True), (2.0, 1, 2, False), (0.5, 2, 2, False), (2.0, 2, 1, False)],
)
def test_status_says_that_runs_crowd_the_cores(monkeypatch, used, each, count, said):
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(cores, "threads_of", lambda pid: each)
    monkeypatch.setattr(cores, "used_by", lambda pids: used)
    states = [
        RunState(str(pid), "running", Running(pid, 0.0, status.gethostname(), 0.0))
        for pid in range(count)
    ]
    elsewhere = RunState("x", "running", Running(9, 0.0, "elsewhere", 0.0))
    line = status.crowding([*states, elsewhere])
    assert bool(line) == said and (not said or "OMP_NUM_THREADS=1" in line)
