"""One contestant of ``bench train``, in a process of its own."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anomalib_rd.bench.ceiling import synchronize
from anomalib_rd.bench.memory import peak_rss
from anomalib_rd.bench.plain_loop import PlainLoop, rd4ad_loss
from anomalib_rd.bench.variants import Loop
from anomalib_rd.data import AnomalyDataModule
from anomalib_rd.networks import Distilled
from anomalib_rd.training.module import DistillationModule
from anomalib_rd.training.run import make_data, make_module, make_trainer


class Turns(Protocol):
    """What ``turns.Turn`` is to a contestant."""

    synchronize: Callable[[], None]

    def ready(self) -> None:
        """Say that all is built."""

    def begin(self) -> None:
        """Wait for the word."""

    def end(self) -> None:
        """Report the seconds since."""


def compete(turn: Turns, loop: Loop, config: dict[str, Any]) -> dict[str, Any]:
    """Train epoch by epoch at the word, then judge.

    Args:
        turn: gives the word for each epoch and for the judgement.
        loop: whose loop trains.
        config: composed from conf/train.yaml and resolved; its ``run_dir`` is the contestant's
            own, and so is the cache folder made in it.

    Returns:
        ``metrics``, ``undefined``, ``precision``, and what ``training_facts`` gives.
    """
    cfg = OmegaConf.create(config)
    os.environ["ANOMALIB_RD_CACHE"] = str(Path(cfg.run_dir) / "cache")
    # From here as in training.run.train, so that equal seeds make equal networks.
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = make_data(cfg)
    module = make_module(cfg, data, config)
    if loop == "lightning":
        facts = by_lightning(turn, cfg, module, data)
    else:
        own_loss = rd4ad_loss if loop == "plain" else lambda distilled: module.loss(*distilled)
        facts = by_plain_loop(turn, cfg, module, data, own_loss)
    make_trainer(cfg, []).test(module, datamodule=data, verbose=False)
    return {
        "metrics": module.judgement.metrics,
        "undefined": module.judgement.undefined,
        "precision": cfg.trainer.precision,
        **facts,
    }


def by_lightning(
    turn: Turns, cfg: DictConfig, module: DistillationModule, data: AnomalyDataModule
) -> dict[str, Any]:
    """Our own training."""
    trainer = make_trainer(cfg, [])
    epochs = Epochs(turn)
    # Before all others: what they do at an epoch's end belongs to that epoch.
    trainer.callbacks.insert(0, epochs)  # type: ignore[attr-defined]
    device = trainer.strategy.root_device
    turn.synchronize = lambda: synchronize(device)
    turn.ready()
    turn.begin()
    trainer.fit(module, datamodule=data)
    return epochs.facts


class Epochs(L.Callback):
    """An epoch lasts until the next one begins, or the training ends."""

    def __init__(self, turn: Turns) -> None:
        self.turn = turn
        self.batch: dict[str, Tensor] = {}
        self.facts: dict[str, Any] = {}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Report the last epoch and wait for the next; the first one's word has been given."""
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
        """Keep one full batch, to count the step's operations later."""
        self.batch = self.batch or batch

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Report the last epoch; count while whatever the step needs is still there."""
        self.turn.end()
        self.turn.begin()
        # Lightning refuses to log here.
        pl_module.log = lambda *_args, **_options: None
        # Compiled, it would hide its operations from the counter.
        with torch.compiler.set_stance("force_eager"):
            self.facts = training_facts(
                pl_module,
                lambda: pl_module.training_step(self.batch),
                trainer.precision_plugin.train_step_context(),
                len(next(iter(self.batch.values()))),
            )


def by_plain_loop(
    turn: Turns,
    cfg: DictConfig,
    module: DistillationModule,
    data: AnomalyDataModule,
    loss: Callable[[Distilled], Tensor],
) -> dict[str, Any]:
    """RD4AD's loop over the same networks."""
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
        plain.epoch(epoch)
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
    """What the training took, measured after it and without a trace in the networks.

    Args:
        networks: that trained.
        forward: a step's loss.
        context: the step's precision.
        images: in the step.

    Returns:
        ``peak_rss`` and ``peak_cuda`` in bytes (None without CUDA), ``step_images``, and
        ``step_flops``, forward and backward: of matrix products and convolutions, a
        multiplication and an addition as two.
    """
    cuda = torch.cuda.is_initialized()
    peak = peak_rss(), torch.cuda.max_memory_allocated() if cuda else None
    kept = {name: value.clone() for name, value in networks.state_dict().items()}
    with FlopCounterMode(display=False) as counter:
        with context:
            loss = forward()
        loss.backward()
    networks.zero_grad()
    networks.load_state_dict(kept)
    flops = counter.get_total_flops()
    return dict(zip(("peak_rss", "peak_cuda"), peak, strict=True)) | {
        "step_images": images,
        "step_flops": flops,
    }
