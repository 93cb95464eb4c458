"""Quick runs: a tiny teacher with random weights, and no pictures unless a test asks for them."""

import pytest

QUICK = ("model.teacher.name=test_efficientnet.r160_in1k", "model.teacher.weights=random")
QUICK += ("report.heatmaps=0", "report.gallery=0")


@pytest.fixture
def compose_config(compose_config):
    """Compose a small run's config: ``compose_config("model=rd4ad")``."""
    return lambda *overrides: compose_config(*QUICK, *overrides)
