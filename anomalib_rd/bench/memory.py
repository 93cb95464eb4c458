"""Peak memory of this process."""

import ctypes
import resource
import sys
from pathlib import Path

PROCESS = Path("/proc/self")


def peak_rss() -> int:
    """Highest resident memory in bytes, since the start or since ``forget_peak``."""
    try:
        lines = (PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> bool:
    """Start anew to look for the peak.

    Returns:
        False where the system can't (only Linux can): ``peak_rss`` is then of the whole time.
    """
    try:
        # What was freed and kept for later would count for whoever comes next.
        ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True
