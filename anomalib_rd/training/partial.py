"""Lightning's limits, which make a run less than a whole one: to try things out, no result."""

import math
from typing import Any

from lightning.pytorch.callbacks import Timer

from anomalib_rd.data import AnomalyDataModule
from anomalib_rd.errors import UserError

# Lightning's Trainer has these attributes, but its type does not say so: hence Any.


def require_some_batches(trainer: Any, data: AnomalyDataModule, fit: bool) -> None:
    """Refuse limits that leave nothing to train on or to judge.

    Args:
        trainer: with the config's limits.
        data: the images that they are limits of.
        fit: whether anything is trained.

    Raises:
        UserError: naming the limit.
    """
    for stage, count in batches(trainer, data).items():
        name = f"limit_{stage}_batches"
        limit = getattr(trainer, name)
        if used(limit, count) == 0 and (fit or stage != "train"):
            if trainer.overfit_batches and stage != "test":
                name, limit = "overfit_batches", trainer.overfit_batches
            hint = (
                "; for none, set validation.kind=null and test_during_training=false"
                if stage == "val"
                else ""
            )
            raise UserError(
                f"trainer.{name}={limit}: leaves none of {count} {stage} batches; give a number"
                f" from 1 on, or a share of at least {1 / count:.2g}{hint}"
            )


def limits_in_force(trainer: Any, data: AnomalyDataModule) -> dict[str, Any]:
    """The trainer's arguments that cut a run short, with their values; empty for a whole run."""
    if trainer.fast_dev_run:
        return {"fast_dev_run": trainer.fast_dev_run}
    found: dict[str, Any] = {}
    counts = batches(trainer, data)
    if trainer.overfit_batches:
        found["overfit_batches"] = trainer.overfit_batches
        counts = {"test": counts["test"]}
    for stage, count in counts.items():
        name = f"limit_{stage}_batches"
        limit = getattr(trainer, name)
        if used(limit, count) < count:
            found[name] = limit
    if (seconds := time_that_ran_out(trainer)) is not None:
        found["max_time"] = f"{seconds:g} s"
    return found


def batches(trainer: Any, data: AnomalyDataModule) -> dict[str, int]:
    """The batches of each stage in one process; ``val`` only where something is validated."""

    def count(items: int, size: int) -> int:
        return math.ceil(math.ceil(items / trainer.world_size) / size)

    found = {
        "train": count(len(data.train_items), data.train_batch_size),
        "test": count(len(data.test_set), data.test_batch_size),
    }
    looks = [data.val_set] if data.val_set is not None else []
    sizes = [*map(len, looks), *([len(data.test_set)] if data.test_curve else [])]
    return found | ({"val": count(max(sizes), data.test_batch_size)} if sizes else {})


def used(limit: int | float, count: int) -> int:
    """How many of ``count`` batches Lightning takes: an int is a number, a float a share."""
    return min(limit, count) if isinstance(limit, int) else int(limit * count)


def time_that_ran_out(trainer: Any) -> float | None:
    """The seconds of ``max_time`` if they ended the training, else None."""
    if trainer.max_epochs is None or 0 <= trainer.max_epochs <= trainer.current_epoch:
        return None
    for timer in trainer.callbacks:
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None and left <= 0:
            return timer.time_elapsed() + left
    return None
