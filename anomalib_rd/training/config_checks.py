"""Checks of the config's values that no constructor checks; they import no torch."""

import difflib
import logging

from omegaconf import DictConfig

from anomalib_rd.errors import UserError
from anomalib_rd.results.runs_table import METRICS
from anomalib_rd.results.sweeps import is_main_process

# Test images in the pixel metrics: all (undefined if a mask is missing), or only normal images
# and those with a mask.
ALL_IMAGES, MASKED = PIXELS_ON = ("all", "masked")
QUANTILE, F1MAX, NO_THRESHOLD = THRESHOLD_KINDS = ("quantile", "f1max", "none")
VALIDATION, ON_TEST = "val/", ("test/", "test_curve/")

log = logging.getLogger(__name__)


def check_config(cfg: DictConfig) -> None:
    """Check the config values that no constructor checks."""
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed}: must be an integer from 0 to {2**32 - 1}")
    check_evaluation_config(cfg)
    check_model_selection(cfg)
    check_threshold_config(cfg)


def check_evaluation_config(cfg: DictConfig) -> None:
    """Check the part that an evaluation uses: metrics, heatmaps and gallery."""
    if cfg.report.gallery != "all" and not _is_count(cfg.report.gallery):
        raise UserError(
            f"report.gallery={cfg.report.gallery}: number of test images; must be all, 0 or more"
        )
    if not _is_count(cfg.report.heatmaps):
        raise UserError(
            f"report.heatmaps={cfg.report.heatmaps}: number of test images; must be 0 or more"
        )
    from anomalib_rd.metrics.streaming import MIN_BINS

    bins, pixels_on = cfg.metrics.max_bins, cfg.metrics.pixels_on
    if bins is not None and (not isinstance(bins, int) or bins < MIN_BINS):
        raise UserError(
            f"metrics.max_bins={bins}: must be at least {MIN_BINS}, or null for exact metrics"
        )
    if cfg.metrics.pro_rd4ad and bins is not None:
        raise UserError(
            "metrics.pro_rd4ad=true needs all anomaly maps, and metrics.max_bins drops them:"
            " set one of the two"
        )
    if pixels_on not in PIXELS_ON:
        raise UserError(f"metrics.pixels_on={pixels_on}: choose one of {', '.join(PIXELS_ON)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_model_selection(cfg: DictConfig) -> None:
    """Check that optimised and monitored metrics are logged, and not computed on the test set."""
    for name, spec in cfg.callbacks.items():
        monitor = str((spec or {}).get("monitor", ""))  # null removes a callback
        key = f"callbacks.{name}.monitor={monitor}"
        if on_test(monitor):
            raise UserError(
                f"{key}: the test set must not steer the training; use val/... with"
                " validation.kind=synthetic"
            )
        _require_logged(key, monitor, cfg, only=VALIDATION)
    objective = str(cfg.optimized_metric or "")
    _require_logged(f"optimized_metric={objective}", objective, cfg)
    if not on_test(objective):
        return
    if not cfg.optimize_on_test:
        raise UserError(
            f"optimized_metric={objective}: this would select on the test set; use val/... with"
            " validation.kind=synthetic, or add optimize_on_test=true, which the record notes"
        )
    if is_main_process():
        log.warning("optimized_metric=%s: the search selects on the test set", objective)


def on_test(metric: str | None) -> bool:
    """Whether a logged metric is computed on the test set."""
    return (metric or "").startswith(ON_TEST)


def _require_logged(key: str, metric: str, cfg: DictConfig, only: str = "") -> None:
    """Raise UserError for a metric that is not logged and that no callback of the user may log."""
    if metric.startswith(VALIDATION) and cfg.validation.kind is None:
        raise UserError(f"{key}: there is no validation; set validation.kind=synthetic")
    if not metric or not metric.startswith(only):
        return
    stages = {
        "val": bool(cfg.validation.kind),
        "test_curve": bool(cfg.test_during_training),
        "test": True,
    }
    names = [name for name in METRICS if name != "pro_rd4ad" or cfg.metrics.pro_rd4ad]
    logged = [f"{stage}/{name}" for stage, used in stages.items() if used for name in names]
    logged.append("train/loss")
    stage, _, rest = metric.partition("/")
    # With several categories each has its own: val/CATEGORY/METRIC.
    if f"{stage}/{rest.rpartition('/')[2]}" in logged:
        return
    targets = [str((spec or {}).get("_target_") or "lightning.") for spec in cfg.callbacks.values()]
    if not all(target.startswith(("anomalib_rd.", "lightning.")) for target in targets):
        return
    nearest = difflib.get_close_matches(metric, logged, n=1)
    hint = f", did you mean {nearest[0]}?" if nearest else ""
    raise UserError(f"{key}: is not logged{hint}; choose one of {', '.join(logged)}")


def check_threshold_config(cfg: DictConfig) -> None:
    """Check the config of ``threshold``."""
    kind = cfg.threshold.get("kind")
    rate, count = cfg.threshold.get("false_positive_rate"), cfg.threshold.get("train_images")
    if kind not in THRESHOLD_KINDS:
        raise UserError(f"threshold.kind={kind}: choose one of {', '.join(THRESHOLD_KINDS)}")
    if kind == F1MAX and cfg.validation.kind is None:
        raise UserError(
            "threshold.kind=f1max: needs images with defects; set validation.kind=synthetic"
        )
    if kind != QUANTILE:
        return
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
        raise UserError(
            f"threshold.false_positive_rate={rate}: must be between 0 and 1, such as 0.05"
        )
    if count is not None and (not isinstance(count, int) or count < 1):
        raise UserError(f"threshold.train_images={count}: must be at least 1, or null for all")
