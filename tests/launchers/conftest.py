"""Multiruns in real processes, with any launcher."""

import json
import os

import pytest
from multiruns import JOBS, PROBE, start
from small_data import make_mvtec


@pytest.fixture
def probe(tmp_path):
    """Resources of two jobs that run at the same time: ``probe("hydra/launcher=parallel")``."""

    def probe_jobs(*words, env=None):
        flags = ["-m", "seed=0,1", "hydra.sweep.dir=probed", "hydra.sweep.subdir=${seed}"]
        words = [PROBE, *flags, "~hydra.callbacks.report", *words]
        done = start(tmp_path, words, env)
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads((tmp_path / f"probed/{seed}/probe.json").read_text()) for seed in (0, 1)]

    return probe_jobs


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A run per category; knot has a broken image. Gives the finished command and its files."""
    root = make_mvtec(tmp_path_factory.mktemp("data"), categories=("cable", "knot", "cloth"))
    broken = root / "knot/train/good/001.png"
    broken.write_bytes(broken.read_bytes()[:200])

    def run(*words, categories="knot,cloth"):
        cwd = tmp_path_factory.mktemp("work")
        # A relative path: the processes of the jobs may start in another folder.
        data = f"data.root={os.path.relpath(root, cwd)}"
        names = f"data.category={categories}"
        words = ["-m", "anomalib_rd", "train", "-m", *JOBS, data, names, "sweep=s", *words]
        done = start(cwd, words)
        folder = cwd / "multirun/s"
        files = {}
        for name in ("result.json", "failure.json", "scores.csv"):
            for path in folder.rglob(name):
                files[str(path.relative_to(folder))] = path.read_text()
        return done, files

    return run


@pytest.fixture(scope="module")
def hydra_sweep(sweep):
    """The sweep by Hydra's basic launcher, one job after the other."""
    return sweep(categories="cable,knot,cloth")
