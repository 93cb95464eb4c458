"""Every launcher leaves what Hydra's own leaves, and a failure stays one failure."""

import json
import os
import re

import pytest
from multiruns import PROBE, start


def private(folder):
    """Locks of their own for the jobs: the machine's GPUs may be in use."""
    folder.chmod(0o700)
    return {"XDG_RUNTIME_DIR": str(folder)}


def check_same(one, other):
    """Exit status 1, the broken one on record, and what both have done is equal to the bit."""
    done, found = other
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cloth" in done.stdout and any(path.endswith("result.json") for path in found)
    (failure,) = [json.loads(text) for path, text in found.items() if "failure" in path]
    assert "001.png" in failure["error"] and "Traceback" in failure["traceback"]
    for path, text in found.items():
        if path.endswith("scores.csv"):
            assert one[1][path] == text
        if path.endswith("result.json"):
            assert json.loads(one[1][path])["metrics"] == json.loads(text)["metrics"]


def test_joblib(sweep, by_hydra):
    """Two workers, the first to be free takes the third job."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    check_same(by_hydra, by_hydra)
    by_joblib = sweep("hydra/launcher=parallel", categories="cable,knot,cloth")
    check_same(by_hydra, by_joblib)
    assert sorted(re.findall(r"\[\d/\d\] \w+", by_joblib[0].stdout)) == [
        "[1/3] cable",
        "[2/3] knot",
        "[3/3] cloth",
    ]
    assert set(by_joblib[1]) == set(by_hydra[1])


@pytest.mark.slow
def test_submitit_local(sweep, by_hydra):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    check_same(by_hydra, sweep("hydra/launcher=local"))


@pytest.mark.slow
def test_ray_on_one_machine(sweep, by_hydra):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    ray = [f"hydra.launcher.ray.{word}" for word in ("init.num_cpus=2", "remote.num_cpus=1")]
    check_same(
        by_hydra, sweep("hydra/launcher=ray_gpus", *ray, "hydra.launcher.ray.remote.num_gpus=0")
    )


@pytest.mark.slow
def test_ray_cluster_of_two_machines(sweep, by_hydra, monkeypatch):
    """Two nodes with a core each; their processes start in another folder than the sweep."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        words = [f"init.address={cluster.address}", "remote.num_cpus=1", "remote.num_gpus=0"]
        words = [f"hydra.launcher.ray.{word}" for word in words]
        check_same(by_hydra, sweep("hydra/launcher=ray_cluster", *words))
    finally:
        cluster.shutdown()


def test_joblib_gives_each_job_a_gpu_and_its_share_of_the_cores(probe, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    env = {"CUDA_VISIBLE_DEVICES": "3,5", "OMP_NUM_THREADS": None, **private(tmp_path)}
    seen = probe("hydra/launcher=parallel", env=env)
    assert {job["cuda"] for job in seen} == {"3", "5"}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert all(job["threads"] <= max(1, cores // 2) for job in seen)


@pytest.mark.slow
def test_submitit_gives_each_job_a_gpu_and_the_cores_asked_for(probe, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    asked = ["hydra.launcher.gpus_per_node=2", "hydra.launcher.cpus_per_task=1"]
    env = {"OMP_NUM_THREADS": None, **private(tmp_path)}
    seen = probe("hydra/launcher=local", *asked, env=env)
    assert {job["cuda"] for job in seen} == {"0", "1"}
    assert all(job["threads"] == 1 for job in seen)


@pytest.mark.slow
@pytest.mark.parametrize("share, gpus", [(1, {"0", "1"}), (0.5, {"0"})])
def test_ray_gives_each_job_a_gpu_or_its_share_of_one(probe, share, gpus):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    words = [f"init.num_gpus={len(gpus)}", "init.num_cpus=2"]
    words += ["remote.num_cpus=1", f"remote.num_gpus={share}"]
    words = [f"hydra.launcher.ray.{word}" for word in words]
    seen = probe("hydra/launcher=ray_gpus", *words, env={"OMP_NUM_THREADS": None})
    assert {job["cuda"] for job in seen} == gpus
    assert all(job["threads"] == 1 for job in seen)


def test_slurm_is_asked_for_what_the_preset_says(tmp_path):
    """A Slurm that takes the job's script and refuses it."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "sbatch"):
        program = programs / name
        program.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/asked.sh\nexit 1\n')
        program.chmod(0o755)
    words = ["-m", "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = start(tmp_path / "work", [PROBE, *words, "~hydra.callbacks.report"], env)
    assert done.returncode != 0
    asked = (tmp_path / "asked.sh").read_text()
    wanted = ["partition=gpu", "gpus-per-node=1", "cpus-per-task=8", "mem=32GB", "array=0-1%2"]
    for line in [*wanted, "time=240", "ntasks-per-node=1"]:
        assert f"#SBATCH --{line}\n" in asked
