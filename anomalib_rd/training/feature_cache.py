"""Cache of the frozen teacher's features, instead of computing them again in every epoch.

Without random transforms they never change, so the cache equals the teacher's output to the bit.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
import psutil
import torch
from rich.progress import track
from torch import Tensor

from anomalib_rd.cores import own_groups
from anomalib_rd.errors import UserError
from anomalib_rd.networks import Teacher

CacheDevice = Literal["auto", "device", "host", "off"]
MAX_SHARE = 0.5  # of the free memory; the networks, gradients and other programs need the rest
# Files of a memory cgroup: limit, usage, and the key in memory.stat that counts droppable pages.
CGROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}

log = logging.getLogger(__name__)


class FeatureCache:
    """Features of all training images at every scale, by the image's index.

    Args:
        features: for each scale (N, Ck, Hk, Wk), on the training device or in host memory.
        device: of the batches.
    """

    def __init__(self, features: list[Tensor], device: torch.device) -> None:
        # index_select returns contiguous tensors: permute channels-last features before it.
        self.last = [f.is_contiguous(memory_format=torch.channels_last) for f in features]
        pairs = zip(features, self.last, strict=True)
        self.stored = [f.permute(0, 2, 3, 1) if last else f for f, last in pairs]
        self.device = device

    def __getitem__(self, index: Tensor) -> list[Tensor]:
        """Features [(B, Ck, Hk, Wk)] of the images (B,), on the device."""
        index = index.to(self.stored[0].device)
        batch = [stored.index_select(0, index) for stored in self.stored]
        if batch[0].device != self.device:
            # Pinned memory lets the copy run asynchronously.
            batch = [f.pin_memory().to(self.device, non_blocking=True) for f in batch]
        pairs = zip(batch, self.last, strict=True)
        return [f.permute(0, 3, 1, 2) if last else f for f, last in pairs]


class FeatureCaching(L.Callback):
    """Gives the module a `FeatureCache`, in the memory of ``target``, during the training."""

    def __init__(self, target: CacheDevice) -> None:
        self.target = target

    def on_load_checkpoint(
        self, trainer: L.Trainer, _module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Skip the cache if no epoch remains."""
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= epochs:
            self.target = "off"

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Run the teacher over all training images, unless the training was stopped early."""
        if self.target == "off" or trainer.should_stop:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        # Under the trainer's precision, which decides the type of the features.
        with trainer.precision_plugin.forward_context():
            pl_module.feature_cache = cache_features(
                pl_module.distiller.teacher,
                data.ordered_train_dataloader(),
                count=len(data.train_items),
                target=self.target,
                device=pl_module.device,
                processes=trainer.num_devices,
                silent=trainer.progress_bar_callback is None or not trainer.is_global_zero,
            )
        data.train_by_index = pl_module.feature_cache is not None

    def on_fit_end(self, _trainer: L.Trainer, pl_module: Any) -> None:
        """Free the memory before the test."""
        pl_module.feature_cache = None


def cache_features(
    teacher: Teacher,
    batches: Iterable[dict[str, Tensor]],
    count: int,
    target: CacheDevice,
    device: torch.device,
    processes: int = 1,
    silent: bool = False,
) -> FeatureCache | None:
    """Run the teacher once over the training images; None if ``auto`` finds too little memory.

    Args:
        teacher: on ``device``.
        batches: the data set's items, each image once: ``index`` (B,) and ``image`` (B, 3, H, W).
        count: number of images.
        target: ``device``, ``host``, ``off``, or ``auto``: the first of these with enough memory.
        device: of the training.
        processes: number of processes that share the host memory, each with its own cache.
        silent: whether to hide the progress bar.

    Raises:
        UserError: too little memory on the requested target.
    """
    cache: list[Tensor] = []
    for batch in track(batches, description="teacher features", transient=True, disable=silent):
        index = batch["index"]
        features = teacher(batch["image"].to(device, non_blocking=True))
        if not cache:
            needed = count * sum(f[0].nbytes for f in features)
            cache_device = choose_device(target, needed, device, processes)
            if cache_device is None:
                return None
            for f in features:
                last = f.is_contiguous(memory_format=torch.channels_last)
                layout = torch.channels_last if last else torch.contiguous_format
                shape = (count, *f.shape[1:])
                cache.append(
                    torch.empty(shape, dtype=f.dtype, device=cache_device, memory_format=layout)
                )
        for stored, scale in zip(cache, features, strict=True):
            stored[index.to(stored.device)] = scale.to(stored.device)
    return FeatureCache(cache, device)


def choose_device(
    target: CacheDevice, needed: int, device: torch.device, processes: int = 1
) -> torch.device | None:
    """The device to store ``needed`` bytes on; None if ``auto`` finds too little memory."""
    host = torch.device("cpu")
    candidates = {"auto": (device, host), "device": (device,), "host": (host,), "off": ()}[target]
    usable = {}
    for candidate in dict.fromkeys(candidates):
        # Processes on one machine share its memory; each has its own GPU.
        share = MAX_SHARE / (processes if candidate.type == "cpu" else 1)
        usable[candidate] = int(free_bytes(candidate) * share)
        if needed <= usable[candidate]:
            log.debug("teacher features: %.2f GiB on %s", needed / 2**30, candidate)
            return candidate
    limits = ", ".join(f"{n / 2**30:.2f} GiB may be used on {name}" for name, n in usable.items())
    reason = f"the teacher's features need {needed / 2**30:.2f} GiB, and {limits}"
    if target == "auto":
        log.warning("%s: they are computed in every epoch", reason)
        return None
    raise UserError(f"speed.feature_cache={target}: {reason}; choose auto or off")


def free_bytes(device: torch.device) -> float:
    """Memory available to new tensors on the device, including torch's cache of free blocks."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    return min(psutil.virtual_memory().available, cgroup_free_bytes())


def cgroup_free_bytes(root: Path = Path("/")) -> float:
    """Free memory within the limits of a container or batch system; infinite without a limit.

    File pages that the kernel can drop count as free. ``root`` has ``proc/self/cgroup`` and
    ``sys/fs/cgroup``.
    """
    groups = own_groups("memory", root)
    free = [_group_free_bytes(path, *CGROUP_FILES[version]) for path, version in groups]
    return min([float("inf"), *free])


def _group_free_bytes(folder: Path, limit: str, used: str, droppable: str) -> float:
    try:
        free = int((folder / limit).read_text()) - int((folder / used).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return free + int(stat.get(droppable, 0))
    except (OSError, ValueError):
        return free


def check_feature_cache(target: Any, transform: Any) -> CacheDevice:
    """Check ``speed.feature_cache``; with ``data.transform`` auto becomes off.

    Raises:
        UserError: an unknown target, or a requested cache of transformed images.
    """
    target = "off" if target is False else target  # YAML reads off as false
    choices = get_args(CacheDevice)
    if target not in choices:
        raise UserError(f"speed.feature_cache={target}: choose one of {', '.join(choices)}")
    checked: CacheDevice = target
    if transform is None or checked == "off":
        return checked
    reason = "data.transform may change a training image from epoch to epoch"
    if checked == "auto":
        log.warning("speed.feature_cache: off, because %s", reason)
        return "off"
    raise UserError(f"speed.feature_cache={checked}: {reason}; choose auto or off")
