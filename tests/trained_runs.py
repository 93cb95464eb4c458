"""Trained runs to load."""

import pytest
from hydra import compose, initialize_config_dir
from small_data import make_mvtec

from anomalib_rd.cli.config import conf_dir, register_resolvers
from anomalib_rd.training.train import train

SMALL = [
    "data=mvtec",
    "data.category=cloth",
    "data.image_size=[64,64]",
    "data.test_batch_size=3",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=none",
]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """Two categories of 12 training, 3 good and 4 defect test images of 80 x 80."""
    return make_mvtec(tmp_path_factory.mktemp("parts"), size=80, train=12)


@pytest.fixture(scope="session")
def make_run(data_root, tmp_path_factory):
    """Train a small run: ``make_run("model=rd4ad")`` gives its folder."""

    def make(*overrides):
        register_resolvers()
        folder = tmp_path_factory.mktemp("run")
        words = [*SMALL, f"data.root={data_root}", f"run_dir={folder}", *overrides]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("train", overrides=words)
        train(cfg)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory):
    """Overrides of a tiny teacher with random weights in a file, so that its runs can be loaded."""
    import timm
    import torch

    name = "test_efficientnet.r160_in1k"
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(timm.create_model(name).state_dict(), path)
    return (f"model.teacher.name={name}", f"model.teacher.weights={path}")


@pytest.fixture(scope="session")
def run(make_run, tiny_teacher):
    """A run of the defaults with a tiny teacher; do not change it."""
    return make_run(*tiny_teacher)


@pytest.fixture
def run_copy(run, tmp_path):
    """A copy, to be damaged."""
    import shutil

    return shutil.copytree(run, tmp_path / "run")
