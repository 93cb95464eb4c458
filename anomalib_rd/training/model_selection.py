"""What a choice may look at: training and held-out images; the test set only if one says so."""

import difflib
import logging

from omegaconf import DictConfig

from anomalib_rd.errors import UserError
from anomalib_rd.results.sweeps import is_main_process
from anomalib_rd.results.table import METRICS

log = logging.getLogger(__name__)

VALIDATION, ON_TEST = "val/", ("test/", "test_curve/")


def check_choices(cfg: DictConfig) -> None:
    """Hold a search's metric and what callbacks monitor against what the config evaluates.

    Raises:
        UserError: a validation that is not made, or the test set without the user's word.
    """
    for name, spec in cfg.callbacks.items():
        monitor = str((spec or {}).get("monitor", ""))  # callbacks.progress=null: without it
        _require_validation(f"callbacks.{name}.monitor={monitor}", monitor, cfg)
        if monitor.startswith(VALIDATION):
            _require_logged(f"callbacks.{name}.monitor={monitor}", monitor, cfg)
        if on_test(monitor):
            raise UserError(
                f"callbacks.{name}.monitor={monitor}: the test set must not steer the training;"
                " take val/... with validation.kind=synthetic"
            )
    objective = str(cfg.optimized_metric or "")
    _require_validation(f"optimized_metric={objective}", objective, cfg)
    if objective:
        _require_logged(f"optimized_metric={objective}", objective, cfg)
    if not on_test(objective):
        return
    if not cfg.optimize_on_test:
        raise UserError(
            f"optimized_metric={objective}: this would choose on the test set; take val/... with"
            " validation.kind=synthetic, or add optimize_on_test=true, and the record says so"
        )
    if is_main_process():
        log.warning("optimized_metric=%s: the search chooses on the test set", objective)


def on_test(logged: str | None) -> bool:
    """Whether a logged value is of the test set."""
    return (logged or "").startswith(ON_TEST)


def _require_logged(what: str, logged: str, cfg: DictConfig) -> None:
    """Refuse a name that nothing logs, unless a callback from elsewhere may log it."""
    stages = {
        "val": bool(cfg.validation.kind),
        "test_curve": bool(cfg.test_during_training),
        "test": True,
    }
    names = [name for name in METRICS if name != "pro_rd4ad" or cfg.metrics.pro_rd4ad]
    known = [f"{stage}/{name}" for stage, there in stages.items() if there for name in names]
    known.append("train/loss")
    stage, _, rest = logged.partition("/")
    # Of several categories each has its own: val/CATEGORY/METRIC.
    plain = f"{stage}/{rest.rpartition('/')[2]}"
    if plain in known or any(_foreign(spec) for spec in cfg.callbacks.values()):
        return
    nearest = difflib.get_close_matches(logged, known, n=1)
    meant = f", did you mean {nearest[0]}?" if nearest else ""
    raise UserError(f"{what}: is not logged{meant}; there are {', '.join(known)}")


def _foreign(spec: DictConfig | None) -> bool:
    target = "" if spec is None else str(spec.get("_target_", ""))
    return bool(target) and not target.startswith(("anomalib_rd.", "lightning."))


def _require_validation(what: str, logged: str, cfg: DictConfig) -> None:
    if logged.startswith(VALIDATION) and cfg.validation.kind is None:
        raise UserError(f"{what}: there is no validation; set validation.kind=synthetic")
