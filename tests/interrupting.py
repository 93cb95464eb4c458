"""Stops a run once, in the middle."""

import os
from pathlib import Path

import lightning as L

from anomalib_rd.results.identity import IGNORED_CALLBACKS

# A stopped run stays the same run: it is resumed without this callback.
IGNORED_CALLBACKS["interrupting.StopOnce"] = None


class PowerCutError(Exception):
    """Not a user error."""


class StopOnce(L.Callback):
    """Stops a run the first time it gets there.

    After the first batch of epoch ``epoch`` (from 0), or at the test if ``epoch`` is None; with
    ``signal``, or an exception if None. Creates the file ``marker``.
    """

    def __init__(self, marker, epoch=2, signal=None):
        self.marker, self.epoch, self.signal = Path(marker), epoch, signal

    def stop(self):
        if self.marker.exists():
            return
        self.marker.touch()
        if self.signal is None:
            raise PowerCutError("power cut")
        os.kill(os.getpid(), self.signal)

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            self.stop()

    def on_test_start(self, trainer, *_):
        if self.epoch is None:
            self.stop()


def stopping(marker, epoch=2, signal=None):
    """The overrides that add it to a command."""
    none = "null"
    return [
        "+callbacks.stop._target_=interrupting.StopOnce",
        f"+callbacks.stop.marker={marker}",
        f"+callbacks.stop.epoch={none if epoch is None else epoch}",
        f"+callbacks.stop.signal={none if signal is None else int(signal)}",
    ]
