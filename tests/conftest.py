"""Shared by all tests: a small data set on disk, configs composed as by the command line."""

import logging
import os
import signal

import pytest
from hypothesis import settings
from own_process import OwnProcessPlugin
from small_data import make_mvtec

os.environ.setdefault("WANDB_MODE", "offline")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A background job of a script ignores Ctrl-C, and so would the processes of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers share the cores, and so do the processes that they start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("ci", deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_configure(config):
    config.pluginmanager.register(OwnProcessPlugin(config))


def pytest_collection_modifyitems(items):
    import torch

    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory):
    """Keep demo data and decoded images of the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALIB_RD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_logging():
    """Remove the handlers that Hydra adds to the root logger when a run is in this process."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = [h for h in root.handlers if h in before]
    root.setLevel(level)


@pytest.fixture(scope="session")
def mvtec_root(tmp_path_factory):
    """Two categories, 6 training and 7 test images each; do not change it."""
    return make_mvtec(tmp_path_factory.mktemp("mvtec"))


@pytest.fixture
def mvtec_copy(tmp_path):
    """A copy with one category, to be damaged."""
    return make_mvtec(tmp_path / "mvtec", categories=("cloth",))


SMALL = [
    "data=mvtec",
    "data.category=cloth",
    "data.image_size=[64,64]",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=none",
]


@pytest.fixture
def compose_config(mvtec_root, tmp_path):
    """Compose a small run's config: ``compose_config("model=rd4ad")``."""
    from hydra import compose, initialize_config_dir

    from anomalib_rd.cli.config import conf_dir, register_resolvers

    register_resolvers()

    def make(*overrides):
        words = [*SMALL, f"data.root={mvtec_root}", f"run_dir={tmp_path / 'run'}", *overrides]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("train", overrides=words)

    return make
