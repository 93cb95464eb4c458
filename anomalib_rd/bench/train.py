"""``bench train``: whole runs beside RD4AD's plain loop, epoch by epoch in turns."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from anomalib_rd.bench.ceiling import ceilings, highest, share
from anomalib_rd.bench.training import compete
from anomalib_rd.bench.turns import Contestant
from anomalib_rd.bench.variants import Variant
from anomalib_rd.errors import UserError


def measure(
    variants: list[Variant],
    config: Callable[[Sequence[str], Path], dict[str, Any]],
    images: list[Path],
) -> dict[str, Any]:
    """Train each variant in a process of its own; the word goes round after every epoch.

    Args:
        variants: the contestants; ratios are to the first.
        config: the run's resolved config with these overrides in this folder.
        images: training images.

    Returns:
        ``contestants`` (see ``summed_up``), ``ceilings``, ``images``, ``batch_size``,
        ``epochs``, and ``baseline``, the first one's label.

    Raises:
        UserError: a config that a plain loop can't train, or what a run finds wrong.
    """
    # Files that a killed worker still writes are no reason to fail.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch:
        folders = [Path(scratch) / variant.name for variant in variants]
        configs = [
            config(variant.overrides, folder)
            for variant, folder in zip(variants, folders, strict=True)
        ]
        for variant, one in zip(variants, configs, strict=True):
            check(variant, one)
        for path in images:
            path.read_bytes()  # so that no contestant is the one to fetch it from the disk
        common = configs[0]
        device = torch.device("cuda" if common["trainer"]["accelerator"] == "gpu" else "cpu")
        before = ceilings(device)
        answers = compare(variants, configs, common["trainer"]["max_epochs"])
        limits = highest(before, ceilings(device))
    first = answers[0]["epochs_s"]
    return {
        "epochs": len(first),
        "images": len(images),
        "batch_size": common["data"]["train_batch_size"],
        "baseline": variants[0].label,
        "contestants": {
            variant.label: {
                "name": variant.name,
                "overrides": list(variant.overrides),
                **summed_up(answer, first, len(images), limits),
            }
            for variant, answer in zip(variants, answers, strict=True)
        },
        "ceilings": limits,
    }


def compare(
    variants: list[Variant], configs: list[dict[str, Any]], epochs: int
) -> list[dict[str, Any]]:
    """Each contestant's result with ``startup_s`` and ``epochs_s``."""
    contestants: list[Contestant] = []
    # On standard error: the tables may be piped.
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(variants) * (epochs + 2))

        def stage(what: str, who: str) -> None:
            progress.update(task, advance=1, description=f"{what}: {who}")

        try:
            startups = []
            for variant, config in zip(variants, configs, strict=True):
                stage("start", variant.label)
                contestants.append(Contestant(variant.label, compete, variant.loop, config))
                startups.append(contestants[-1].ready())
            taken: list[list[float]] = [[] for _ in variants]
            for epoch in range(epochs):
                for contestant, seconds in zip(contestants, taken, strict=True):
                    stage(f"epoch {epoch + 1}", contestant.name)
                    seconds.append(contestant.turn())
            results = []
            for contestant in contestants:
                stage("judgement", contestant.name)
                results.append(contestant.turn())
        finally:
            for contestant in contestants:
                contestant.leave()
    return [
        {"startup_s": startup, "epochs_s": seconds, **result}
        for startup, seconds, result in zip(startups, taken, results, strict=True)
    ]


def check(variant: Variant, config: dict[str, Any]) -> None:
    """Raise UserError for what RD4AD's loop doesn't do, and for several devices."""
    if config["trainer"]["devices"] != 1:
        raise UserError("trainer.devices: bench train compares on one device; leave it at 1")
    if variant.loop == "lightning":
        return
    own_loss = config["loss"]["_target_"].endswith(".FlattenedCosine")
    for key, fits in (
        ("loss=flattened_cosine", own_loss),
        ("scheduler=none", not config["scheduler"]),
        ("averaging=none", not config["averaging"]),
        ("data.transform=null", not config["data"]["transform"]),
    ):
        if not fits:
            raise UserError(
                f"{key}: RD4AD's plain loop knows nothing else; leave it, or leave out 'plain' "
                "and 'plain-loss' by --only"
            )


def summed_up(
    answer: dict[str, Any], baseline: list[float], images: int, limits: dict[str, float]
) -> dict[str, Any]:
    """The figures of one contestant.

    Returns:
        The answer, and ``images_per_s`` over all epochs, ``first_epoch_s``, ``steady_s`` (median
        of the later epochs, or the only one), ``ratio`` to the baseline's same epochs
        (``median``, ``min``, ``max`` of the later ones, ``total`` of all), ``flops_per_s`` of
        the later epochs and ``of_ceiling``, the part of the measured ceiling that it is.
    """
    seconds = answer["epochs_s"]
    later = seconds[1:] or seconds
    ratios = [b / s for b, s in zip(baseline[-len(later) :], later, strict=True)]
    steady = statistics.median(later)
    flops = answer["step_flops"] / answer["step_images"] * images / steady
    return {
        **answer,
        "images_per_s": images * len(seconds) / sum(seconds),
        "first_epoch_s": seconds[0],
        "steady_s": steady,
        "ratio": {
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
            "total": sum(baseline) / sum(seconds),
        },
        "flops_per_s": flops,
        "of_ceiling": share(flops, answer["precision"], limits),
    }
