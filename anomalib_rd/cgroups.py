"""The control groups of this process, by which containers and batch systems limit it."""

from collections.abc import Iterator
from pathlib import Path


def own_groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, int]]:
    """The process's own control group and those above it, each with its version, 1 or 2.

    A limit may be set on any of them, as Slurm sets one on a job's step: the tightest counts. Where
    a container shows the paths of its host, which do not exist inside, its limit is at the top.

    Args:
        controller: such as ``cpu`` or ``memory``.
        root: of the file system, with ``proc/self/cgroup`` and ``sys/fs/cgroup``.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no such system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts, version = ["", "unified"], 2
        elif controller in controllers.split(","):
            mounts, version = [controller], 1
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            top = root / "sys/fs/cgroup" / mount
            for depth in range(len(parts) + 1):
                yield top.joinpath(*parts[:depth]), version
