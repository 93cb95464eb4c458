"""`bench train`: complete runs compared with RD4AD's plain loop, taking turns after each epoch."""

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anomalib_rd.data import AnomalyDataModule
from anomalib_rd.errors import UserError
from anomalib_rd.networks import DistillationOutput
from anomalib_rd.training.build import (
    make_callbacks,
    make_data,
    make_evaluator,
    make_module,
    make_trainer,
)
from anomalib_rd.training.callbacks import LossMonitor
from anomalib_rd.training.module import DistillationModule

from .ceilings import highest, measure_ceilings, share, synchronize
from .measuring import peak_rss
from .plain_loop import PlainLoop, rd4ad_loss
from .turns import Contestant, Turn

# plain: RD4AD's loop; plain_loss: the same loop with the config's loss; lightning: ours.
Loop = Literal["plain", "plain_loss", "lightning"]


@dataclass(frozen=True)
class Variant:
    """A contestant.

    Attributes:
        name: on the command line.
        label: in tables and plots.
        loop: the training loop.
        overrides: of the config, after the user's.
        needs_cuda: whether it is skipped on a CPU unless chosen by name.
    """

    name: str
    label: str
    loop: Loop
    overrides: tuple[str, ...]
    needs_cuda: bool = False


OFF = "speed=off"
LAST = ("speed=exact", "speed.channels_last=true")
# Each of ours has one more switch than the previous.
VARIANTS = (
    Variant("plain", "plain PyTorch loop", "plain", (OFF,)),
    Variant("plain-loss", "plain loop, our loss", "plain_loss", (OFF,)),
    Variant("lightning", "Lightning, no switches", "lightning", (OFF,)),
    Variant("image-cache", "+ image cache", "lightning", (OFF, "speed.image_cache=true")),
    Variant("feature-cache", "+ feature cache (default)", "lightning", ("speed=exact",)),
    Variant("channels-last", "+ channels last", "lightning", LAST),
    Variant("fused-adam", "+ fused Adam", "lightning", (*LAST, "speed.fused=true")),
    Variant("bf16", "+ bf16 (speed=fast)", "lightning", ("speed=fast",)),
    Variant("compile", "+ compile", "lightning", ("speed=fast", "speed.compile=true"), True),
)


def select_variants(names: Sequence[str], cuda: bool) -> list[Variant]:
    """The variants with these names; without names all that the device supports."""
    if names:
        return [variant for variant in VARIANTS if variant.name in names]
    return [variant for variant in VARIANTS if cuda or not variant.needs_cuda]


def measure(
    variants: list[Variant],
    config: Callable[[Sequence[str], Path], dict[str, Any]],
    images: list[Path],
) -> dict[str, Any]:
    """Train each variant in its own process; they take turns after every epoch.

    Args:
        variants: the contestants; the first is the baseline of the ratios.
        config: (overrides, folder) -> resolved config of a run.
        images: training images.

    Returns:
        ``contestants`` (see `summarise`), ``ceilings``, ``images``, ``batch_size``, ``epochs``
        and ``baseline``, the label of the first.

    Raises:
        UserError: a config that a plain loop can't train, or an error of a run.
    """
    # Ignored errors: a killed worker may still write files.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch:
        configs = [config(variant.overrides, Path(scratch) / variant.name) for variant in variants]
        for variant, one in zip(variants, configs, strict=True):
            check(variant, one)
        for path in images:
            path.read_bytes()  # now in the system's cache: no contestant waits for the disk
        trainer = configs[0]["trainer"]
        device = torch.device("cuda" if trainer["accelerator"] == "gpu" else "cpu")
        before = measure_ceilings(device)
        answers = compare(variants, configs, trainer["max_epochs"])
        limits = highest(before, measure_ceilings(device))
    baseline = answers[0]["epochs_s"]
    return {
        "epochs": len(baseline),
        "images": len(images),
        "batch_size": configs[0]["data"]["train_batch_size"],
        "baseline": variants[0].label,
        "contestants": {
            variant.label: {
                "name": variant.name,
                "overrides": list(variant.overrides),
                **summarise(answer, baseline, len(images), limits),
            }
            for variant, answer in zip(variants, answers, strict=True)
        },
        "ceilings": limits,
    }


def compare(
    variants: list[Variant], configs: list[dict[str, Any]], epochs: int
) -> list[dict[str, Any]]:
    """The result of each contestant, with ``startup_s`` and ``epochs_s``."""
    contestants: list[Contestant] = []
    startups: list[float] = []
    seconds: list[list[float]] = [[] for _ in variants]
    # On standard error, as the tables may be piped.
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(variants) * (epochs + 2))
        try:
            for variant, config in zip(variants, configs, strict=True):
                progress.update(task, advance=1, description=f"start: {variant.label}")
                contestants.append(Contestant(variant.label, compete, variant.loop, config))
                startups.append(contestants[-1].wait_until_ready())
            for epoch in range(epochs):
                for contestant, taken in zip(contestants, seconds, strict=True):
                    text = f"epoch {epoch + 1}: {contestant.name}"
                    progress.update(task, advance=1, description=text)
                    taken.append(contestant.take_turn())
            results = []
            for contestant in contestants:
                progress.update(task, advance=1, description=f"test: {contestant.name}")
                results.append(contestant.take_turn())
        finally:
            for contestant in contestants:
                contestant.stop()
    return [
        {"startup_s": startup, "epochs_s": taken, **result}
        for startup, taken, result in zip(startups, seconds, results, strict=True)
    ]


def check(variant: Variant, config: dict[str, Any]) -> None:
    """Raise UserError for several devices and for configs that RD4AD's loop cannot train."""
    if config["trainer"]["devices"] != 1:
        raise UserError("trainer.devices: contestants run on one device; remove the override")
    if variant.loop == "lightning":
        return
    for key, fits in (
        ("loss=flattened_cosine", config["loss"]["_target_"].endswith(".FlattenedCosine")),
        ("scheduler=none", not config["scheduler"]),
        ("model.ema_decay=null", config["model"]["ema_decay"] is None),
        ("data.transform=null", not config["data"]["transform"]),
    ):
        if not fits:
            raise UserError(
                f"{key}: RD4AD's plain loop requires this; remove the override, or exclude "
                "'plain' and 'plain-loss' by --only"
            )


def summarise(
    answer: dict[str, Any], baseline: list[float], images: int, limits: dict[str, float]
) -> dict[str, Any]:
    """The figures of one contestant.

    Returns:
        The answer with ``images_per_s`` over all epochs, ``first_epoch_s``, ``steady_s`` (median
        of the later epochs, or the only one), ``ratio`` to the same epochs of the baseline
        (``median``, ``min``, ``max`` of the later ones, ``total`` of all), ``flops_per_s`` of
        the later epochs and ``of_ceiling``, its fraction of the measured ceiling.
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


def compete(turn: Turn, loop: Loop, config: dict[str, Any]) -> dict[str, Any]:
    """Train one epoch per turn, then test.

    Args:
        turn: schedules each epoch and the test.
        loop: the training loop.
        config: composed from conf/train.yaml and resolved; the folder ``run_dir`` is also that
            of the cache.

    Returns:
        ``metrics``, ``undefined``, ``precision``, and the results of `training_facts`.
    """
    cfg = OmegaConf.create(config)
    os.environ["ANOMALIB_RD_CACHE"] = str(Path(cfg.run_dir) / "cache")
    # The same order as in training.train.train, so that equal seeds give equal networks.
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = make_data(cfg)
    module = make_module(cfg)
    if loop == "lightning":
        facts = _train_with_lightning(turn, cfg, module, data)
    else:
        loss = rd4ad_loss if loop == "plain" else lambda distilled: module.loss(*distilled)
        facts = _train_with_plain_loop(turn, cfg, module, data, loss)
    evaluator = make_evaluator(cfg, data)
    make_trainer(cfg, [evaluator]).test(module, datamodule=data, verbose=False)
    return {
        "metrics": evaluator.result.metrics,
        "undefined": evaluator.result.undefined,
        "precision": cfg.trainer.precision,
        **facts,
    }


def _train_with_lightning(
    turn: Turn, cfg: DictConfig, module: DistillationModule, data: AnomalyDataModule
) -> dict[str, Any]:
    trainer = make_trainer(cfg, [*make_callbacks(cfg), LossMonitor()])
    epochs = EpochTurns(turn)
    # The first callback, so that the others' work at the end of an epoch counts for that epoch.
    trainer.callbacks.insert(0, epochs)  # type: ignore[attr-defined]
    device = trainer.strategy.root_device
    turn.synchronize = lambda: synchronize(device)
    turn.ready()
    turn.begin()
    trainer.fit(module, datamodule=data)
    return epochs.facts


class EpochTurns(L.Callback):
    """Makes each epoch a turn; it lasts until the next epoch begins or the training ends."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.batch: dict[str, Tensor] = {}
        self.facts: dict[str, Any] = {}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """End the turn of the previous epoch; the first turn began before ``fit``."""
        if trainer.current_epoch:
            self.turn.end()
            self.turn.begin()

    def on_train_batch_start(
        self,
        trainer: L.Trainer,  # noqa: ARG002
        pl_module: L.LightningModule,  # noqa: ARG002
        batch: dict[str, Tensor],
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Store the first batch, to count the step's operations later."""
        self.batch = self.batch or batch

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """End the last turn; count operations while the step's inputs still exist."""
        self.turn.end()
        self.turn.begin()
        # Lightning refuses to log here.
        pl_module.log = lambda *_args, **_options: None
        # The counter does not see the operations of a compiled step.
        with torch.compiler.set_stance("force_eager"):
            self.facts = training_facts(
                pl_module,
                lambda: pl_module.training_step(self.batch),
                trainer.precision_plugin.train_step_context(),
                len(next(iter(self.batch.values()))),
            )


def _train_with_plain_loop(
    turn: Turn,
    cfg: DictConfig,
    module: DistillationModule,
    data: AnomalyDataModule,
    loss: Callable[[DistillationOutput], Tensor],
) -> dict[str, Any]:
    device = torch.device("cuda" if cfg.trainer.accelerator == "gpu" else "cpu")
    turn.synchronize = lambda: synchronize(device)
    networks = module.distiller.to(device)
    plain = PlainLoop(
        networks,
        loss,
        module.make_optimizer([p for p in module.parameters() if p.requires_grad]),
        [sample.path for sample in data.split.train],
        data.image_size,
        data.train_batch_size,
        data.seed,
    )
    turn.ready()
    for epoch in range(cfg.trainer.max_epochs):
        turn.begin()
        plain.train_epoch(epoch)
        turn.end()
    turn.begin()
    images = next(iter(plain.loader)).to(device)
    return training_facts(networks, lambda: plain.forward(images), nullcontext(), len(images))


def training_facts(
    networks: nn.Module,
    forward: Callable[[], Tensor],
    context: AbstractContextManager[Any],
    images: int,
) -> dict[str, Any]:
    """Memory and operations of the training, measured after it.

    Args:
        networks: the trained networks, not changed.
        forward: computes the loss of a step.
        context: of the step's precision.
        images: number of images in the step.

    Returns:
        ``peak_rss`` and ``peak_cuda`` in bytes (None without CUDA), ``step_images``, and
        ``step_flops`` of matrix products and convolutions, forward and backward (a
        multiplication and an addition are two).
    """
    cuda = torch.cuda.is_initialized()
    facts = {
        "peak_rss": peak_rss(),
        "peak_cuda": torch.cuda.max_memory_allocated() if cuda else None,
        "step_images": images,
    }
    state = {name: value.clone() for name, value in networks.state_dict().items()}
    with FlopCounterMode(display=False) as counter:
        with context:
            loss = forward()
        loss.backward()
    networks.zero_grad()
    networks.load_state_dict(state)
    return {**facts, "step_flops": counter.get_total_flops()}
