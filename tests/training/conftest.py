"""Quick runs: a tiny teacher from a file, and no pictures unless a test asks for them."""

import pytest

TEACHER = "test_efficientnet.r160_in1k"


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """Overrides of a quick run."""
    import timm
    import torch

    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(timm.create_model(TEACHER).state_dict(), path)
    teacher = (f"model.teacher.name={TEACHER}", f"model.teacher.weights={path}")
    return (*teacher, "report.heatmaps=0", "report.gallery=0")


@pytest.fixture
def compose_config(compose_config, quick):
    """Compose a small run's config: ``compose_config("model=rd4ad")``."""
    return lambda *overrides: compose_config(*quick, *overrides)
