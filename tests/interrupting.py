"""A run that is stopped on its way, once."""

import os
from pathlib import Path

import lightning as L

from anomalib_rd.results.identity import IGNORED_CALLBACKS

# A run that was stopped is the same run: it must be resumed without this callback.
IGNORED_CALLBACKS["interrupting.StopOnce"] = None


class PowerCutError(Exception):
    """Not a mistake of the user."""


class StopOnce(L.Callback):
    """Stops the process within a run, the first time it comes there.

    In epoch ``epoch`` (from 0) after the first batch, or where ``epoch`` is None at the test;
    by ``signal``, or where that is None by an exception. ``marker`` is made on the way.
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
    """The words that put it into a command."""
    none = "null"
    return [
        "+callbacks.stop._target_=interrupting.StopOnce",
        f"+callbacks.stop.marker={marker}",
        f"+callbacks.stop.epoch={none if epoch is None else epoch}",
        f"+callbacks.stop.signal={none if signal is None else int(signal)}",
    ]
