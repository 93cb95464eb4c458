"""Work for processes of a group; without Lightning, so that they start quickly."""

import os
import signal
import time

from anomalib_rd.errors import UserError


def fail_in_second(kind, _):
    """The second process fails, the first waits for it forever."""
    if os.environ["RANK"] == "0":
        time.sleep(600)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"mistake": UserError("mend this"), "defect": ValueError("no good")}[kind]


def wait_long(started):
    (started / os.environ["RANK"]).touch()
    time.sleep(600)
