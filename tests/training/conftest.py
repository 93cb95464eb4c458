"""Quick runs: a tiny teacher, and no images unless a test asks for them."""

import pytest
from trained_runs import tiny_teacher

__all__ = ["tiny_teacher"]


@pytest.fixture(scope="session")
def quick(tiny_teacher):
    """Overrides of a quick run."""
    return (*tiny_teacher, "report.heatmaps=0", "report.gallery=0")


@pytest.fixture
def compose_config(compose_config, quick):
    """Compose a small run's config: ``compose_config("model=rd4ad")``."""
    return lambda *overrides: compose_config(*quick, *overrides)
