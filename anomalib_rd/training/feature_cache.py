"""The frozen teacher's features of the training images, computed once instead of every epoch.

Without random transforms they never change: the cache gives the same bits as the teacher.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from rich.progress import track
from torch import Tensor

from anomalib_rd.cores import own_groups
from anomalib_rd.errors import UserError
from anomalib_rd.networks import Teacher

Place = Literal["auto", "device", "host", "off"]
PLACES = ("auto", "device", "host", "off")
# The rest is for the networks, their gradients and what else runs on the machine.
SHARE = 0.5
# Files of a cgroup: its limit, what is used of it, and what in memory.stat counts droppable pages.
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")

log = logging.getLogger(__name__)


class FeatureCache:
    """Features of all training images at every scale, by the image's index.

    Args:
        features: for each scale (N, Ck, Hk, Wk), on the training device or in host memory.
        device: where a batch is wanted.
    """

    def __init__(self, features: list[Tensor], device: torch.device) -> None:
        # Picked out of channels-last storage, a batch would come out contiguous: keep the
        # channels last in the shape, too.
        self.last = [f.is_contiguous(memory_format=torch.channels_last) for f in features]
        pairs = zip(features, self.last, strict=True)
        self.stored = [f.permute(0, 2, 3, 1) if last else f for f, last in pairs]
        self.device = device

    @property
    def bytes(self) -> int:
        """Memory of the features."""
        return sum(stored.nbytes for stored in self.stored)

    def __getitem__(self, index: Tensor) -> list[Tensor]:
        """Features [(B, Ck, Hk, Wk)] of the images (B,), on the device."""
        index = index.to(self.stored[0].device)
        batch = [self._moved(stored.index_select(0, index)) for stored in self.stored]
        return [
            f.permute(0, 3, 1, 2) if last else f for f, last in zip(batch, self.last, strict=True)
        ]

    def _moved(self, features: Tensor) -> Tensor:
        if features.device == self.device:
            return features
        # Pinned, the copy does not make the host wait for the device.
        return features.pin_memory().to(self.device, non_blocking=True)


def cache_features(
    teacher: Teacher,
    batches: Iterable[dict[str, Tensor]],
    count: int,
    place: Place,
    device: torch.device,
    processes: int = 1,
    silent: bool = False,
) -> FeatureCache | None:
    """Run the teacher once over the training images.

    Args:
        teacher: on ``device``.
        batches: the data set's items, each image once: ``index`` (B,) and ``image`` (B, 3, H, W).
        count: number of images.
        place: ``device``, ``host``, ``off``, or ``auto``: the first of them that has room.
        device: where the training is.
        processes: that share this machine's host memory, each with a cache of its own.
        silent: show no progress bar.

    Returns:
        None where ``auto`` found no room.

    Raises:
        UserError: no room in the place asked for.
    """
    cache: list[Tensor] = []
    home: torch.device | None = None
    for batch in track(batches, description="teacher features", transient=True, disable=silent):
        index = batch["index"]
        features = teacher(batch["image"].to(device, non_blocking=True))
        if not cache:
            needed = count * sum(f[0].nbytes for f in features)
            home = choose_place(place, needed, device, processes)
            if home is None:
                return None
            cache = [empty_cache(count, f, home) for f in features]
        for stored, scale in zip(cache, features, strict=True):
            stored[index.to(stored.device)] = scale.to(stored.device)
    return FeatureCache(cache, device)


def empty_cache(count: int, like: Tensor, home: torch.device) -> Tensor:
    """Room for ``count`` rows of a batch's features, in their type and memory format."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    shape = (count, *like.shape[1:])
    return torch.empty(shape, dtype=like.dtype, device=home, memory_format=layout)


def choose_place(
    place: Place, needed: int, device: torch.device, processes: int = 1
) -> torch.device | None:
    """Where ``needed`` bytes go; None if they fit nowhere that ``place`` allows."""
    host = torch.device("cpu")
    candidates = {"auto": (device, host), "device": (device,), "host": (host,), "off": ()}[place]
    room = {}
    for home in dict.fromkeys(candidates):
        # Processes on one machine share its memory; each has a GPU of its own.
        share = SHARE / (processes if home.type == "cpu" else 1)
        room[home] = int(free_bytes(home) * share)
        if needed <= room[home]:
            log.debug("teacher features: %.2f GiB on %s", needed / 2**30, home)
            return home
    found = ", ".join(
        f"{bytes_ / 2**30:.2f} GiB may be used on {home}" for home, bytes_ in room.items()
    )
    what = f"the teacher's features need {needed / 2**30:.2f} GiB, and {found}"
    if place == "auto":
        log.warning("%s: computed anew each epoch", what)
        return None
    raise UserError(f"speed.feature_cache={place}: {what}; choose auto or off")


def free_bytes(device: torch.device) -> float:
    """Memory that new tensors could take on the device, what torch has in reserve included."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    return min(psutil.virtual_memory().available, cgroup_free_bytes())


def cgroup_free_bytes(root: Path = Path("/")) -> float:
    """What a container or batch system leaves of its limits; infinite without one.

    File pages that can be dropped count as free.

    Args:
        root: of the file system, with ``proc/self/cgroup`` and ``sys/fs/cgroup``.
    """
    files = {1: V1, 2: V2}
    groups = own_groups("memory", root)
    return min([float("inf"), *(_group_free_bytes(path, *files[kind]) for path, kind in groups)])


def _group_free_bytes(folder: Path, limit: str, used: str, droppable: str) -> float:
    try:
        free = int((folder / limit).read_text()) - int((folder / used).read_text())
    except (OSError, ValueError):  # not there, or "max"
        return float("inf")
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return free + int(stat.get(droppable, 0))
    except (OSError, ValueError):
        return free


def usable_place(place: Any, transform: Any) -> Place:
    """Check ``speed.feature_cache`` against the data's transform.

    Raises:
        UserError: an unknown place, or one asked for although the images are transformed.
    """
    place = "off" if place is False else place  # YAML's bare off
    if place not in PLACES:
        raise UserError(f"speed.feature_cache={place}: choose one of {', '.join(PLACES)}")
    if transform is None or place == "off":
        return place
    if place == "auto":
        log.warning(
            "speed.feature_cache: off, for data.transform may change an image from epoch to epoch"
        )
        return "off"
    raise UserError(
        f"speed.feature_cache={place}: with data.transform set, a training image may change from "
        "epoch to epoch, so its features can't be kept; choose auto or off"
    )
