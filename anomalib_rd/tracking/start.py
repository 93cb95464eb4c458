"""One W&B run begun and ended: online where there is a login and a server, offline where not."""

import logging
import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.tracking.login import login_known

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

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
    if mode in ONLINE and not login_known(found):
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


def lacks_login() -> bool:
    """Whether runs would be online if W&B knew a login; False where W&B cannot tell."""
    import wandb

    try:
        found = wandb.setup(settings=wandb_settings()).settings
        lacking = found.mode in ONLINE and not login_known(found)
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
