"""The W&B logger: online where there is a login and a server, else offline."""

import logging
import math
import netrc
import os
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import write_atomically
from anomalib_rd.results.scored_image import ScoredImage
from anomalib_rd.tracking.keys import EXAMPLES, IMAGES, MAPS

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

WANDB_ID = "wandb-id.txt"


def get_run_id(folder: Path, again: bool) -> str:
    """The id kept in a folder, or a new one, which is kept there.

    Drawn and not computed: W&B refuses the id of a run that was deleted, and a removed folder
    is a new start.

    Args:
        folder: made if it does not exist.
        again: whether to go on with the run whose id is there, if one is.
    """
    path = folder / WANDB_ID
    if again and path.is_file():
        return path.read_text().strip()
    made = secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(f"{made}\n".encode()))
    return made


@contextmanager
def close_runs(loggers: Iterable[Logger]) -> Iterator[None]:
    """Close the loggers' W&B runs when the block ends, as failed if it raises.

    Exceptions pass through, `KeyboardInterrupt` and `SystemExit` included. Without this the
    next run in the same process would be logged into this one.
    """
    loggers = list(loggers)
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in loggers:
            finish(logger, failed=failed)


def finish(logger: Logger, failed: bool) -> None:
    """Close the logger's W&B run, see `finish_run`; other loggers are left alone.

    A run never started or already closed is fine.
    """
    run = logger._experiment if isinstance(logger, WandbLogger) else None
    if run is not None:
        finish_run(run, failed)


# Since 0.31 wandb reaches the same service by another default address, and still takes
# the login that earlier versions wrote under this one.
_CLOUD_HOST = "api.wandb.ai"


def has_login(settings: "wandb.Settings") -> bool:
    """True if wandb would find an API key or identity token by itself.

    The places are wandb's own: its environment variables, its settings files and the netrc
    file. `wandb.login` cannot answer this: it prompts, prints and may ask the server.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return bool(settings.api_key) or _in_netrc(_hosts(settings))


def _hosts(settings: "wandb.Settings") -> list[str]:
    url = str(settings.base_url)
    default = type(settings).model_fields["base_url"].default
    return [urlsplit(url).netloc, *([_CLOUD_HOST] if url == default else [])]


def _in_netrc(hosts: list[str]) -> bool:
    named = os.environ.get("NETRC")
    candidates = [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]
    for path in (candidate.expanduser() for candidate in candidates):
        if not path.exists():
            continue
        try:
            entries = netrc.netrc(path)
        except (netrc.NetrcParseError, OSError):
            return False
        return any((entries.authenticators(host) or ("", "", ""))[2] for host in hosts)
    return False


ONLINE = ("online", "shared", "run")  # "run", "dryrun": wandb's older names, still accepted
MODES = (*ONLINE, "offline", "dryrun", "disabled")
_NO_LOGIN = "no login found"

# wandb's own printing and console capture fight with rich progress bars; its timeouts (90 s
# to start, for ever to finish) would let an absent server hold up a sweep. Seconds.
_SETTINGS: dict[str, Any] = {
    "console": "off",
    "silent": True,
    "quiet": True,
    "init_timeout": 5.0,
    "finish_timeout": 60.0,
    "finish_timeout_raises": True,  # so that `finish_run` can say it in one line
}


def start_run(init: dict[str, Any]) -> "wandb.Run":
    """Begin a run, offline if it can't be online; says in one line where it is.

    A run that was left open in this process is closed first, as failed.

    Args:
        init: arguments of `wandb.init`; ``mode`` and ``dir`` may lack, ``dir`` is made.
    """
    import wandb

    if wandb.run is not None:  # wandb.init would hand it out again: two runs merged into one
        log.warning("W&B: run '%s' was left open, closing it", wandb.run.name)
        finish_run(wandb.run, failed=True)
    found = wandb.setup(settings=wandb_settings()).settings
    mode = init.get("mode") or found.mode
    reason = None
    if mode in ONLINE and not has_login(found):
        mode, reason = "offline", _NO_LOGIN
    if mode == "disabled":
        init = {key: value for key, value in init.items() if key != "dir"}  # or it is made
    elif "dir" in init:
        Path(init["dir"]).mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(**(init | {"mode": mode}))
    except Exception as error:  # wandb raises many kinds here: its own, TimeoutError, OSError
        if mode not in ONLINE:
            raise
        # The failed run's id stays "in use" until the service is gone (wandb issue 9865).
        wandb.teardown()
        wandb.setup(settings=wandb_settings())
        mode, reason = "offline", f"cannot log online ({first_line(error)})"
        run = wandb.init(**(init | {"mode": mode}))
    _say_where(run, mode, reason)
    return run


def is_login_missing() -> bool:
    """Whether runs would be online if W&B knew a login; False where W&B cannot tell."""
    import wandb

    try:
        found = wandb.setup(settings=wandb_settings()).settings
        lacking = found.mode in ONLINE and not has_login(found)
        # Else it would not look at WANDB_MODE again.
        wandb.teardown()
    except Exception as error:  # its own kinds: each run finds out, and says so
        log.debug("W&B: no answer whether there is a login: %s", error)
        return False
    return lacking


def finish_run(run: Any, failed: bool) -> bool:
    """Close one `wandb.Run` (or its disabled stand-in), exit code 1 if failed else 0.

    Waits at most WANDB_FINISH_TIMEOUT seconds (60) for the upload, and raises nothing that
    W&B raises: a result on disk is not to be lost to a logger.

    Returns:
        Whether W&B has it all, or offline its files do.
    """
    try:
        run.finish(exit_code=int(failed))
    except Exception as error:
        line = "W&B: upload not finished (%s); `wandb sync %s` after"
        log.warning(line, first_line(error), shlex.quote(str(Path(run.dir).parent)))
        return False
    return True


def first_line(error: Exception) -> str:
    """The first line of an error's message, its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def wandb_settings() -> "wandb.Settings":
    """Ours where neither this wandb nor the environment says otherwise.

    Given to `wandb.setup`, not to `wandb.init`: only there does silence also rule out prompts.
    """
    import wandb

    known = wandb.Settings.model_fields  # finish_timeout came with 0.27
    return wandb.Settings(
        **{
            key: value
            for key, value in _SETTINGS.items()
            if key in known and f"WANDB_{key.upper()}" not in os.environ
        }
    )


def _say_where(run: "wandb.Run", mode: str, reason: str | None) -> None:
    if mode in ONLINE:
        log.info("W&B: %s", run.url)
    elif reason:
        folder = Path(run.dir).parent
        with suppress(ValueError):
            folder = folder.relative_to(Path.cwd())
        line = "W&B: %s: offline; `wandb sync %s` uploads it"
        log.warning(line, reason, shlex.quote(str(folder)))


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


_COLUMNS = ["path", "category", "defect", "label", "score"]
_CLASSES = {0: "normal", 1: "defect"}


@rank_zero_only
def log_evaluation(
    logger: Logger,
    *,
    categories: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, float],
    scores: pd.DataFrame,
    images: Sequence[ScoredImage],
) -> None:
    """Log a run's test result to a W&B logger; any other logger is left alone.

    Summary: `test/<metric>` of `metrics`, a column to compare runs by, and `<category>/<metric>`
    of `categories`, a column per category in a sweep. An undefined (NaN) metric is left out: W&B
    stores NaN as a string, which turns the column into text and spoils means over a group, while a
    missing value shows as a blank and is skipped.

    History: table `test/images`, a row per image of `scores` (columns path, category, defect,
    label, score) with pictures where `images` has them, and the panels `test/examples` (with
    switchable ground truth and prediction) and `test/anomaly_maps` (inferno; one colour
    scale for all of them, so that they compare).

    Raises:
        ValueError: if an image's path has no row in `scores`.
    """
    if not isinstance(logger, WandbLogger):
        return
    missing = {image.path for image in images} - set(scores["path"])
    if missing:
        raise ValueError(f"images without a row in scores: {sorted(missing)}")

    import wandb

    category = dict(zip(scores["path"], scores["category"], strict=True))
    captions = [
        (f"{category[image.path]}: " if len(categories) > 1 else "")
        + f"{image.defect} {PurePath(image.path).stem}, score {image.score:.3f}"
        for image in images
    ]
    paths = [image.path for image in images]
    pictures = dict(zip(paths, map(_overlays, images, captions), strict=True))
    maps = dict(zip(paths, _maps(images, captions), strict=True))
    rows: list[Any] = [
        [*row, pictures.get(row[0]), maps.get(row[0])]
        for row in scores[_COLUMNS].astype(object).itertuples(index=False)
    ]
    media: dict[str, Any] = {
        IMAGES: wandb.Table(columns=[*_COLUMNS, "image", "anomaly_map"], data=rows)
    }
    if images:
        media[EXAMPLES] = list(pictures.values())
        media[MAPS] = list(maps.values())
    run = logger.experiment
    run.log(media)
    for prefix, found in {"test": metrics, **categories}.items():
        defined = {key: float(value) for key, value in found.items() if not math.isnan(value)}
        run.summary.update({f"{prefix}/{key}": value for key, value in defined.items()})


def _overlays(image: ScoredImage, caption: str) -> "wandb.Image":
    import wandb

    masks = {"prediction": image.predicted_mask, "ground_truth": image.mask}
    return wandb.Image(
        image.image,
        caption=caption,
        masks={
            name: {"mask_data": mask.astype(np.uint8), "class_labels": _CLASSES}
            for name, mask in masks.items()
            if mask is not None
        },
    )


def _maps(images: Sequence[ScoredImage], captions: Sequence[str]) -> list["wandb.Image"]:
    import matplotlib
    import wandb

    if not images:
        return []
    low = min(float(image.anomaly_map.min()) for image in images)
    high = max(float(image.anomaly_map.max()) for image in images)
    colour = matplotlib.colormaps["inferno"]
    return [
        wandb.Image(
            colour((image.anomaly_map - low) / ((high - low) or 1.0), bytes=True)[..., :3],
            caption=caption,
        )
        for image, caption in zip(images, captions, strict=True)
    ]
