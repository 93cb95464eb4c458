"""What a choice may look at: training and held-out images; the test set only if one says so."""

import logging

from omegaconf import DictConfig

from anomalib_rd.errors import UserError
from anomalib_rd.results.progress import first_process

VALIDATION, ON_TEST = "val/", ("test/", "test_curve/")

log = logging.getLogger(__name__)


def check_choices(cfg: DictConfig) -> None:
    """Hold a search's objective and what callbacks monitor against what the config evaluates.

    Raises:
        UserError: a validation that is not made, or the test set without the user's word.
    """
    for name, spec in cfg.callbacks.items():
        monitor = str((spec or {}).get("monitor", ""))  # callbacks.progress=null: without it
        _require_validation(f"callbacks.{name}.monitor={monitor}", monitor, cfg)
        if on_test(monitor):
            raise UserError(
                f"callbacks.{name}.monitor={monitor}: the test set must not steer the training;"
                " take val/... with data.val=synthetic"
            )
    objective = str(cfg.objective or "")
    _require_validation(f"objective={objective}", objective, cfg)
    if not on_test(objective):
        return
    if not cfg.objective_on_test:
        raise UserError(
            f"objective={objective}: this would choose on the test set; take val/... with"
            " data.val=synthetic, or add objective_on_test=true, and the record says so"
        )
    if first_process():
        log.warning("objective=%s: the search chooses on the test set", objective)


def on_test(logged: str | None) -> bool:
    """Whether a logged value is of the test set."""
    return (logged or "").startswith(ON_TEST)


def _require_validation(what: str, logged: str, cfg: DictConfig) -> None:
    if logged.startswith(VALIDATION) and cfg.data.val is None:
        raise UserError(f"{what}: there is no validation; set data.val=synthetic")
