"""Keys of the values logged to W&B."""

import re

WANDB_LOGGER = "anomalib_rd.tracking.wandb_logger.wandb_logger"

# Test of a run.
IMAGES, EXAMPLES, MAPS = "test/images", "test/examples", "test/anomaly_maps"

# Summary run of a sweep, and its job type.
SUMMARY = "summary"
MEANS, CATEGORIES, DIFFERENCES = "sweep/means", "sweep/categories", "sweep/differences"
HEATMAPS = "sweep/heatmaps"
HEADLINE = ("image_auroc", "pixel_auroc", "aupro")


def bars(metric: str) -> str:
    """Chart of a metric over categories."""
    return f"sweep/{metric}"


def mean(metric: str, variant: str | None) -> str:
    """Mean of a metric over all categories, of a variant if there are several."""
    # W&B reads a dot as a level of nesting, and cannot search for blanks.
    return f"mean/{metric}" + (f"/{re.sub('[^0-9A-Za-z_-]+', '_', variant)}" if variant else "")


def runs(state: str) -> str:
    """Number of the sweep's runs in a state."""
    return f"runs/{state.replace(' ', '_')}"
