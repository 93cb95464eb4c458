"""Every W&B run is closed, with the exit code that tells whether it failed."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

log = logging.getLogger(__name__)


@contextmanager
def tracked(loggers: Iterable[Logger]) -> Iterator[None]:
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
    """Close the logger's W&B run, exit code 1 if failed else 0; other loggers are left alone.

    Waits at most WANDB_FINISH_TIMEOUT seconds (60) for the upload, and raises nothing that
    W&B raises: a result on disk is not to be lost to a logger. A run never started or
    already closed is fine.
    """
    run = logger._experiment if isinstance(logger, WandbLogger) else None
    if run is not None:
        finish_run(run, failed)


def finish_run(run: Any, failed: bool) -> None:
    """Close one `wandb.Run` (or its disabled stand-in); see `finish`."""
    try:
        run.finish(exit_code=int(failed))
    except Exception as error:
        line = "W&B: upload not finished (%s); `wandb sync %s` after"
        log.warning(line, first_line(error), Path(run.dir).parent)


def first_line(error: Exception) -> str:
    """The first line of an error's message, its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
