"""Every W&B run is closed, with the exit code that tells whether it failed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lightning.pytorch.loggers import Logger, WandbLogger

from anomalib_rd.tracking.start import finish_run


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
    """Close the logger's W&B run, see `finish_run`; other loggers are left alone.

    A run never started or already closed is fine.
    """
    run = logger._experiment if isinstance(logger, WandbLogger) else None
    if run is not None:
        finish_run(run, failed)
