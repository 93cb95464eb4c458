"""The teacher's features in memory: rows, devices, memory limits and refusals."""

import pytest
import torch

from anomalib_rd.errors import UserError
from anomalib_rd.networks import Teacher
from anomalib_rd.training import feature_cache
from anomalib_rd.training.feature_cache import (
    FeatureCache,
    cache_features,
    cgroup_free_bytes,
    check_feature_cache,
    choose_device,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def teacher():
    return Teacher("resnet18.tv_in1k", weights="random")


@pytest.fixture
def free(monkeypatch):
    """Pretend how many bytes are free on the host and on a GPU."""

    def pretend(host, device=0):
        monkeypatch.setattr(
            feature_cache, "free_bytes", lambda home: device if home.type == "cuda" else host
        )

    return pretend


def batches(images, size=2):
    order = torch.arange(len(images)).flip(0)
    return [{"index": part, "image": images[part]} for part in order.split(size)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_cached_batch_equals_the_teachers_output_and_layout(teacher, layout):
    teacher = teacher.to(memory_format=layout)
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    cache = cache_features(teacher, batches(images), 5, "auto", CPU, silent=True)
    index = torch.tensor([3, 0, 3])
    for cached, own in zip(cache[index], teacher(images[index]), strict=True):
        assert torch.equal(cached, own)
        assert cached.is_contiguous(memory_format=layout)
    assert sum(f.nbytes for f in cache.stored) == 5 * 4 * (64 * 16 * 16 + 128 * 8 * 8 + 256 * 4 * 4)


def test_cached_features_have_the_type_of_autocast(teacher):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        cache = cache_features(teacher, batches(images), 2, "auto", CPU, silent=True)
        own = teacher(images)
    kept = cache[torch.arange(2)]
    assert [f.dtype for f in kept] == [f.dtype for f in own] == [torch.bfloat16] * 3
    assert all(torch.equal(a, b) for a, b in zip(kept, own, strict=True))


def test_auto_uses_the_device_then_the_host_then_no_cache(free, caplog):
    free(host=100, device=100)
    assert choose_device("auto", 50, GPU) == GPU
    free(host=100, device=99)
    assert choose_device("auto", 50, GPU) == CPU
    assert choose_device("host", 50, GPU) == CPU
    free(host=99, device=99)
    assert choose_device("auto", 50, GPU) is None
    assert caplog.records
    assert choose_device("auto", 50, CPU) is None


def test_processes_of_one_machine_share_its_memory_but_not_their_gpus(free):
    free(host=100, device=100)
    assert choose_device("host", 25, GPU, processes=2) == CPU
    assert choose_device("auto", 26, CPU, processes=2) is None
    assert choose_device("auto", 50, GPU, processes=2) == GPU


@pytest.mark.parametrize(("place", "where"), [("device", "cuda:0"), ("host", "cpu")])
def test_too_little_memory_on_the_requested_device_is_one_line(free, place, where):
    free(host=10 * 2**30, device=10 * 2**30)
    with pytest.raises(UserError, match=f"need 6.00 GiB, and 5.00 GiB may be used on {where}"):
        choose_device(place, 6 * 2**30, GPU)


def test_there_is_no_cache_without_memory(free, teacher):
    free(host=10)
    images = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
    assert cache_features(teacher, batches(images), 2, "auto", CPU, silent=True) is None


V1, V2 = "memory.limit_in_bytes memory.usage_in_bytes", "memory.max memory.current"
STEP = "system.slice/slurmstepd.scope/job_7/step_0"


@pytest.fixture
def machine(tmp_path):
    """``machine(cgroup, {folder: (limit, used)})``: a root of a file system with these cgroups."""

    def make(own, groups, files=V2):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(own)
        for folder, values in groups.items():
            place = tmp_path / "sys/fs/cgroup" / folder
            place.mkdir(parents=True, exist_ok=True)
            for name, value in zip(files.split(), values, strict=True):
                (place / name).write_text(f"{value}\n")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("groups", "free"),
    [
        ({".": (1000, 400)}, 600),  # a container's own
        ({".": ("max", 400)}, float("inf")),
        ({STEP: (1000, 300)}, 700),  # Slurm's step
        ({STEP: ("max", 300), "system.slice/slurmstepd.scope/job_7": (900, 300)}, 600),
        ({STEP: (1000, 300), "system.slice": (5000, 4900)}, 100),
        ({STEP: (1000, 300), "system.slice/other": (10, 5)}, 700),
        ({}, float("inf")),
    ],
)
def test_the_tightest_limit_of_the_cgroup_and_its_parents_counts(machine, groups, free):
    assert cgroup_free_bytes(machine(f"0::/{STEP}\n", groups)) == free


def test_without_cgroups_there_is_no_limit(tmp_path):
    assert cgroup_free_bytes(tmp_path) == float("inf")


@pytest.mark.parametrize("folder", ["memory/slurm/uid_1/job_7", "memory/slurm", "memory"])
def test_the_limits_of_cgroup_v1_count_too(machine, folder):
    """At the top if a container has the paths of its host."""
    own = "5:cpu,cpuacct:/slurm\n4:memory:/slurm/uid_1/job_7\n1:name=systemd:/x\n0::/\n"
    groups = {folder: (1000, 400), "memory/other": (10, 5), "cpu/slurm": (10, 5)}
    assert cgroup_free_bytes(machine(own, groups, V1)) == 600


def test_pages_of_files_that_can_be_dropped_are_free(machine):
    root = machine("0::/job\n", {"job": (1000, 900)})
    (root / "sys/fs/cgroup/job/memory.stat").write_text("anon 300\ninactive_file 500\n")
    assert cgroup_free_bytes(root) == 600


def test_a_cgroup_outside_of_the_container_is_no_error(machine):
    assert cgroup_free_bytes(machine("0::/../../job\n", {".": (1000, 400)})) == 600


def test_features_of_transformed_images_are_not_cached(caplog):
    assert check_feature_cache("auto", None) == "auto"
    assert check_feature_cache("off", "flip") == "off" and check_feature_cache(False, None) == "off"
    assert not caplog.text
    assert check_feature_cache("auto", "flip") == "off"
    assert "data.transform" in caplog.text
    with pytest.raises(UserError, match=r"speed.feature_cache=device.*data.transform"):
        check_feature_cache("device", "flip")
    with pytest.raises(UserError, match="choose one of auto, device, host, off"):
        check_feature_cache("disk", None)


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["device", "host"])
def test_on_a_gpu_from_device_and_from_host(teacher, place):
    device = torch.device("cuda")
    on_device = teacher.to(device)
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    cache = cache_features(on_device, batches(images), 5, place, device, silent=True)
    assert isinstance(cache, FeatureCache)
    kept, own = cache[torch.tensor([4, 1])], on_device(images[[4, 1]].to(device))
    assert all(f.device.type == "cuda" for f in kept)
    for cached, fresh in zip(kept, own, strict=True):
        torch.testing.assert_close(cached, fresh)
