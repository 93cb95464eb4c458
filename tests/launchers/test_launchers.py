"""Every launcher gives the results of Hydra's basic launcher, and a failed job fails alone."""

import json
import os
import re

import pytest
from multiruns import PROBE, start


def private_locks(folder):
    """Separate locks for the jobs: the machine's GPUs may be in use."""
    folder.chmod(0o700)
    return {"XDG_RUNTIME_DIR": str(folder)}


def check_equal(expected, actual):
    """Exit status 1, a record of the failed job, and equal results to the bit."""
    done, files = actual
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cloth" in done.stdout and any(path.endswith("result.json") for path in files)
    (failure,) = [json.loads(text) for path, text in files.items() if "failure" in path]
    assert "001.png" in failure["error"] and "Traceback" in failure["traceback"]
    for path, text in files.items():
        if path.endswith("scores.csv"):
            assert expected[1][path] == text
        if path.endswith("result.json"):
            assert json.loads(expected[1][path])["metrics"] == json.loads(text)["metrics"]


@pytest.mark.slow
def test_joblib(sweep, hydra_sweep):
    """Two workers; the first free one runs the third job."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    check_equal(hydra_sweep, hydra_sweep)
    joblib_sweep = sweep("hydra/launcher=parallel", categories="cable,knot,cloth")
    check_equal(hydra_sweep, joblib_sweep)
    assert sorted(re.findall(r"\[\d/\d\] \w+", joblib_sweep[0].stdout)) == [
        "[1/3] cable",
        "[2/3] knot",
        "[3/3] cloth",
    ]
    assert set(joblib_sweep[1]) == set(hydra_sweep[1])


@pytest.mark.slow
def test_submitit_local(sweep, hydra_sweep):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    check_equal(hydra_sweep, sweep("hydra/launcher=local"))


@pytest.mark.slow
def test_ray_on_one_machine(sweep, hydra_sweep):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    ray = [f"hydra.launcher.ray.{word}" for word in ("init.num_cpus=2", "remote.num_cpus=1")]
    check_equal(
        hydra_sweep, sweep("hydra/launcher=ray_gpus", *ray, "hydra.launcher.ray.remote.num_gpus=0")
    )


@pytest.mark.slow
def test_ray_cluster_of_two_machines(sweep, hydra_sweep, monkeypatch):
    """Two nodes with a core each; their processes do not start in the folder of the sweep."""
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
        check_equal(hydra_sweep, sweep("hydra/launcher=ray_cluster", *words))
    finally:
        cluster.shutdown()


def test_joblib_gives_each_job_a_gpu_and_its_share_of_the_cores(probe, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    env = {"CUDA_VISIBLE_DEVICES": "3,5", "OMP_NUM_THREADS": None, **private_locks(tmp_path)}
    jobs = probe("hydra/launcher=parallel", env=env)
    assert {job["cuda"] for job in jobs} == {"3", "5"}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert all(job["threads"] <= max(1, cores // 2) for job in jobs)


@pytest.mark.slow
def test_submitit_gives_each_job_a_gpu_and_its_cores(probe, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    launcher = ["hydra.launcher.gpus_per_node=2", "hydra.launcher.cpus_per_task=1"]
    env = {"OMP_NUM_THREADS": None, **private_locks(tmp_path)}
    jobs = probe("hydra/launcher=local", *launcher, env=env)
    assert {job["cuda"] for job in jobs} == {"0", "1"}
    assert all(job["threads"] == 1 for job in jobs)


@pytest.mark.slow
@pytest.mark.parametrize("share, gpus", [(1, {"0", "1"}), (0.5, {"0"})])
def test_ray_gives_each_job_a_gpu_or_its_share_of_one(probe, share, gpus):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    words = [f"init.num_gpus={len(gpus)}", "init.num_cpus=2"]
    words += ["remote.num_cpus=1", f"remote.num_gpus={share}"]
    words = [f"hydra.launcher.ray.{word}" for word in words]
    jobs = probe("hydra/launcher=ray_gpus", *words, env={"OMP_NUM_THREADS": None})
    assert {job["cuda"] for job in jobs} == gpus
    assert all(job["threads"] == 1 for job in jobs)


def test_slurm_preset(tmp_path):
    """A fake Slurm stores the job's script and refuses it."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "sbatch"):
        program = programs / name
        program.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/job.sh\nexit 1\n')
        program.chmod(0o755)
    words = ["-m", "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = start(tmp_path / "work", [PROBE, *words, "~hydra.callbacks.report"], env)
    assert done.returncode != 0
    script = (tmp_path / "job.sh").read_text()
    options = ["partition=gpu", "gpus-per-node=1", "cpus-per-task=8", "mem=32GB", "array=0-1%2"]
    for option in [*options, "time=240", "ntasks-per-node=1"]:
        assert f"#SBATCH --{option}\n" in script
