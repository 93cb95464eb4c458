"""Start and finish W&B runs: online with a login and a server, else offline.

Without Lightning, so that the summary of a sweep does not import torch.
"""

import logging
import netrc
import os
import secrets
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from anomalib_rd.results.files import write_atomically

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

WANDB_ID = "wandb-id.txt"
ONLINE = ("online", "shared", "run")  # "run", "dryrun": wandb's older names, still accepted
MODES = (*ONLINE, "offline", "dryrun", "disabled")
# Default address of the service before wandb 0.31, which still accepts logins saved under it.
_CLOUD_HOST = "api.wandb.ai"
# wandb's printing and console capture conflict with rich progress bars. With its own timeouts (90 s
# to start, infinite to finish) a missing server would block a sweep. In seconds.
_SETTINGS: dict[str, Any] = {
    "console": "off",
    "silent": True,
    "quiet": True,
    "init_timeout": 5.0,
    "finish_timeout": 60.0,
    "finish_timeout_raises": True,  # so that `finish_run` can report it in one line
}


def get_run_id(folder: Path, resume: bool) -> str:
    """The W&B id saved in a folder, or a new one, which is saved there.

    It is random: W&B refuses the id of a deleted run, and a removed folder means a new run. The
    saved id is used only with ``resume``.
    """
    path = folder / WANDB_ID
    if resume and path.is_file():
        return path.read_text().strip()
    run_id = secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(f"{run_id}\n".encode()))
    return run_id


def start_run(init: dict[str, Any]) -> "wandb.Run":
    """Start a run, offline if online fails, and log its URL or folder.

    A run that is still open in this process is closed first, as failed. ``init`` contains the
    arguments of `wandb.init`; its ``dir`` is created.
    """
    import wandb

    if wandb.run is not None:  # wandb.init would return it: two runs merged into one
        log.warning("W&B: run '%s' was not closed, closing it", wandb.run.name)
        finish_run(wandb.run, failed=True)
    settings = wandb.setup(settings=wandb_settings()).settings
    mode = init.get("mode") or settings.mode
    reason = None
    if mode in ONLINE and not has_login(settings):
        mode, reason = "offline", "no login found"
    if mode == "disabled":
        init = {key: value for key, value in init.items() if key != "dir"}  # wandb would create it
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
    if mode in ONLINE:
        log.info("W&B: %s", run.url)
    elif reason:
        folder = Path(run.dir).parent
        with suppress(ValueError):
            folder = folder.relative_to(Path.cwd())
        command = f"wandb sync {shlex.quote(str(folder))}"
        log.warning("W&B: %s: offline; `%s` uploads it", reason, command)
    return run


def finish_run(run: Any, failed: bool) -> bool:
    """Close a `wandb.Run` (or its disabled stand-in), with exit code 1 if failed.

    Waits at most WANDB_FINISH_TIMEOUT seconds (60) for the upload. Errors of W&B become a warning,
    so that they cannot fail a run.

    Returns:
        Whether everything is uploaded or, offline, saved.
    """
    try:
        run.finish(exit_code=int(failed))
    except Exception as error:
        command = f"wandb sync {shlex.quote(str(Path(run.dir).parent))}"
        log.warning("W&B: upload not finished (%s); run `%s`", first_line(error), command)
        return False
    return True


def has_login(settings: "wandb.Settings") -> bool:
    """Whether wandb would find an API key or identity token: environment, settings or netrc.

    `wandb.login` would prompt, print and perhaps contact the server.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if settings.api_key:
        return True
    url = str(settings.base_url)
    default = type(settings).model_fields["base_url"].default
    hosts = [urlsplit(url).netloc, *([_CLOUD_HOST] if url == default else [])]
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        if Path(path).expanduser().exists():
            return _in_netrc(Path(path).expanduser(), hosts)
    return False


def _in_netrc(path: Path, hosts: list[str]) -> bool:
    try:
        entries = netrc.netrc(path)
    except (netrc.NetrcParseError, OSError):
        return False
    return any((entries.authenticators(host) or ("", "", ""))[2] for host in hosts)


def is_login_missing() -> bool:
    """Whether runs are offline only because of a missing login; False if W&B raises an error."""
    import wandb

    try:
        settings = wandb.setup(settings=wandb_settings()).settings
        missing = settings.mode in ONLINE and not has_login(settings)
        # Otherwise wandb would not read WANDB_MODE again.
        wandb.teardown()
    except Exception as error:  # each run will report the same error
        log.debug("W&B: cannot determine whether there is a login: %s", error)
        return False
    return missing


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def wandb_settings() -> "wandb.Settings":
    """The `_SETTINGS` that this version of wandb supports, unless the environment sets them.

    For `wandb.setup`, because ``silent`` does not suppress prompts in `wandb.init`.
    """
    import wandb

    fields = wandb.Settings.model_fields  # finish_timeout came with 0.27
    return wandb.Settings(
        **{
            key: value
            for key, value in _SETTINGS.items()
            if key in fields and f"WANDB_{key.upper()}" not in os.environ
        }
    )
