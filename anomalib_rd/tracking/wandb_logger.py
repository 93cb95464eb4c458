"""The W&B logger: online where there is a login and a server, offline where there is not."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from anomalib_rd.errors import UserError
from anomalib_rd.tracking.start import MODES, start_run

if TYPE_CHECKING:
    import wandb

_NOT_IN_PROJECTS = "/\\#?%:"
_TAG_LENGTH = 64  # the server refuses a run with a longer tag


def wandb_logger(
    *,
    project: str | None,
    entity: str | None,
    group: str | None,
    job_type: str | None,
    name: str | None,
    tags: Sequence[str],
    save_dir: str | Path | None,
    mode: str | None = None,
    id: str | None = None,
) -> WandbLogger:
    """A Lightning logger whose W&B run starts at first use and never holds up training.

    An argument of None (and no tags) leaves the matter to W&B's own environment variable
    (WANDB_PROJECT, WANDB_ENTITY, WANDB_RUN_GROUP, WANDB_JOB_TYPE, WANDB_NAME, WANDB_TAGS,
    WANDB_DIR, WANDB_RUN_ID).

    Args:
        project: the W&B project.
        entity: the user or team that owns the project.
        group: what the runs of one sweep share.
        job_type: the kind of run inside the group.
        name: the run's display name.
        tags: labels to filter by; cut to W&B's 64 characters, blank ones dropped.
        save_dir: folder for W&B's files, made if missing.
        mode: online, offline or disabled; None: WANDB_MODE or `wandb offline`'s setting,
            else online. Online without a login, or with a server that refuses or does not
            answer within WANDB_INIT_TIMEOUT seconds (5), becomes offline and says so once.
        id: a run's id, to continue that run.

    Raises:
        UserError: for a mode that does not exist, or a project that W&B would refuse.
    """
    mode = mode or os.environ.get("WANDB_MODE") or None
    if mode not in (None, *MODES):
        raise UserError(
            f"W&B mode '{mode}' does not exist (logger.mode or WANDB_MODE): "
            "use online, offline or disabled"
        )
    if project is not None and (set(project) & set(_NOT_IN_PROJECTS) or len(project) > 128):
        raise UserError(
            f"logger.wandb.project={project}: W&B takes at most 128 characters and none of "
            f"{' '.join(_NOT_IN_PROJECTS)}"
        )
    wanted = {
        "project": project,
        "entity": entity,
        "group": group,
        "job_type": job_type,
        "name": name,
        "tags": [str(tag)[:_TAG_LENGTH] for tag in tags if str(tag).strip()] or None,
        "dir": None if save_dir is None else str(save_dir),
        "mode": mode,
        "id": id,
        "resume": "allow" if id else None,
    }
    return LazyWandbLogger(**{key: value for key, value in wanted.items() if value is not None})


class LazyWandbLogger(WandbLogger):
    """Lightning's logger with another start: its own run, its own axes, offline if need be."""

    def __init__(self, **init: Any) -> None:
        super().__init__(
            name=init.get("name"),
            save_dir=init.get("dir") or os.environ.get("WANDB_DIR") or ".",
            project=init.get("project"),
            id=init.get("id"),
        )
        self._init = init

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; started here, at first use and on rank zero only."""
        # A spawned worker attaches to its parent's run: that is Lightning's part.
        if self._experiment is None and getattr(self, "_attach_id", None) is None:
            self._experiment = start_run(self._init)
            _define_axes(self._experiment)
        return super().experiment


def _define_axes(run: "wandb.Run") -> None:
    # Lightning logs by step; people compare epochs. No catch-all "*": which of two matching
    # patterns wins is not documented. No summary="last" for test/*: the last value is what
    # W&B keeps anyway, and asking for it turns each number into {"last": number} and hides
    # tables and images from the workspace.
    run.define_metric("epoch", hidden=True)
    run.define_metric("trainer/global_step", hidden=True)
    run.define_metric("train/*", step_metric="epoch")
    run.define_metric("val/*", step_metric="epoch")
    run.define_metric("test_curve/*", step_metric="epoch")
    run.define_metric("lr-*", step_metric="trainer/global_step")
