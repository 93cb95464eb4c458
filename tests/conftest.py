"""Shared by all tests: a small data set on disk, configs composed as the command line does."""

import os

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

os.environ.setdefault("WANDB_MODE", "offline")
settings.register_profile("ci", deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_collection_modifyitems(items):
    import torch

    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def draw(rng, size, defect=False):
    """A striped texture; a defect is a bright square."""
    rows = np.arange(size)[:, None]
    stripes = 110 + 40 * np.sin((rows + rng.integers(8)) / 3) + rng.normal(0, 6, (size, size))
    image = np.repeat(stripes[..., None], 3, axis=2)
    mask = np.zeros((size, size), dtype=np.uint8)
    if defect:
        top, left = rng.integers(4, size - 20, 2)
        image[top : top + 14, left : left + 14] += 90
        mask[top : top + 14, left : left + 14] = 255
    return np.clip(image, 0, 255).astype(np.uint8), mask


def make_mvtec(root, categories=("cloth", "cable"), size=64, train=6, good=3, bad=4, masks=True):
    """MVTec AD's layout with tiny images."""
    for number, category in enumerate(categories):
        rng = np.random.default_rng(number)
        plan = [("train", "good", train), ("test", "good", good), ("test", "square", bad)]
        for part, kind, count in plan:
            folder = root / category / part / kind
            folder.mkdir(parents=True)
            truth = root / category / "ground_truth" / kind
            for i in range(count):
                image, mask = draw(rng, size, defect=kind != "good")
                Image.fromarray(image).save(folder / f"{i:03}.png")
                if kind != "good" and masks:
                    truth.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(truth / f"{i:03}_mask.png")
    return root


@pytest.fixture(scope="session")
def mvtec_root(tmp_path_factory):
    """Two categories, 6 training and 7 test images each; not to be changed."""
    return make_mvtec(tmp_path_factory.mktemp("mvtec"))


@pytest.fixture
def mvtec_copy(tmp_path):
    """The same with one category, to be damaged."""
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
