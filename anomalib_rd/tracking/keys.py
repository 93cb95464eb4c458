"""The names under which W&B keeps what is logged, for those who log and those who show."""

import re

WANDB_LOGGER = "anomalib_rd.tracking.wandb_logger.wandb_logger"

# A run's test.
IMAGES, EXAMPLES, MAPS = "test/images", "test/examples", "test/anomaly_maps"

# A sweep's summary run, and its job type.
SUMMARY = "summary"
MEANS, CATEGORIES, DIFFERENCES = "sweep/means", "sweep/categories", "sweep/differences"
HEATMAPS = "sweep/heatmaps"
HEADLINE = ("image_auroc", "pixel_auroc", "aupro")


def bars(metric: str) -> str:
    """The chart of a metric over categories."""
    return f"sweep/{metric}"


def mean(metric: str, variant: str | None) -> str:
    """The mean of a metric over all categories; with the variant's name where there are many."""
    # A dot would be taken for a level, and a blank cannot be searched for.
    return f"mean/{metric}" + (f"/{re.sub('[^0-9A-Za-z_-]+', '_', variant)}" if variant else "")


def runs(state: str) -> str:
    """How many of the sweep's runs are in a state."""
    return f"runs/{state.replace(' ', '_')}"
