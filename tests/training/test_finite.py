"""NaN and infinity end a run, with the losses in failure.json."""

import json
import math

import lightning as L
import pytest
import torch

from anomalib_rd.cli import main
from anomalib_rd.errors import NotFiniteError
from anomalib_rd.training.callbacks import require_finite_training
from anomalib_rd.training.train import train

# 6 training images: three batches an epoch; 7 test images: three batches.
BASE = ["model=rd4ad", "data.train_batch_size=2", "data.test_batch_size=3", "report.heatmaps=0"]
BASE += ["callbacks.checkpoint.every_s=0"]


class Poison(L.Callback):
    """Puts a value into the student's weights before a batch; epoch and batch count from 1."""

    def __init__(self, stage, epoch, batch, value="nan"):
        self.stage, self.at, self.value = stage, (epoch, batch), float(value)

    def strike(self, trainer, module, batch):
        if (trainer.current_epoch + (self.stage == "train"), batch + 1) == self.at:
            with torch.no_grad():
                next(module.distiller.student.parameters()).fill_(self.value)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.stage == "train":
            self.strike(trainer, module, batch_idx)

    def on_test_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        if self.stage == "test":
            self.strike(trainer, module, batch_idx)


def poison(stage, epoch, batch, value="nan"):
    """The overrides that add it to a config."""
    said = {"stage": stage, "epoch": epoch, "batch": batch, "value": value}
    words = [f"+callbacks.poison.{key}={value}" for key, value in said.items()]
    return [f"+callbacks.poison._target_={__name__}.Poison", *words]


@pytest.fixture
def stopped(compose_config, tmp_path):
    """Train until divergence; returns the message and ``failure.json``."""

    def start(*overrides):
        with pytest.raises(NotFiniteError) as told:
            train(compose_config(*BASE, *overrides))
        return str(told.value), json.loads((tmp_path / "run/failure.json").read_text())

    start.folder = tmp_path / "run"
    return start


@pytest.mark.parametrize("more", [[], ["test_during_training=true"]], ids=["plain", "test curve"])
def test_a_diverged_loss_names_epoch_and_batch_and_writes_the_losses(stopped, more):
    said, failure = stopped(*poison("train", epoch=2, batch=3), *more)
    kept = stopped.folder / "checkpoints/last.ckpt"
    assert said == (
        "train/loss is nan in batch 3 of 3 of epoch 2: training diverged; lower optimizer.lr; "
        f"losses in {stopped.folder / 'failure.json'}, the last finite state in {kept}"
    )
    assert failure["error"] == f"NotFiniteError: {said}"
    (first_epoch,), (*fine, lost) = failure["loss_curve"], failure["batch_losses"]
    assert 0 < first_epoch < 6 and all(0 < loss < 6 for loss in fine) and lost is None
    state = torch.load(kept, weights_only=True)
    assert all(value.isfinite().all() for value in state["state_dict"].values())
    assert state["epoch"] == 0 and state["callbacks"]["LossMonitor"]["curve"] == [first_epoch]
    assert not (stopped.folder / "result.json").exists()


def test_weights_that_diverge_in_the_last_step_reach_no_checkpoint(stopped):
    said, failure = stopped("optimizer.lr=inf", "data.train_batch_size=6")
    assert said.startswith("the weights are not finite after the last of 1 batches of epoch 1:")
    assert failure["loss_curve"] == [] and 0 < failure["batch_losses"][0] < 6
    assert "last finite state" not in said and not (stopped.folder / "checkpoints").exists()


@pytest.mark.parametrize("more", [[], ["metrics.max_bins=1000"]], ids=["kept", "streamed"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_maps_that_are_not_finite_name_epoch_and_batch(stopped, more, value):
    said, _ = stopped(*poison("test", epoch=2, batch=2, value=value), *more)
    assert said.startswith(
        "the anomaly maps of test batch 2 have NaN or infinite values after epoch 2"
    )
    assert str(stopped.folder / "checkpoints/last.ckpt") in said
    assert not (stopped.folder / "result.json").exists()


def test_divergence_is_one_line_with_status_2(mvtec_root, tmp_path, capfd):
    words = ["data=mvtec", f"data.root={mvtec_root}", "data.category=cloth", "data.num_workers=0"]
    words += ["data.image_size=[64,64]", "trainer=cpu", "logger=none", *BASE]
    words += ["optimizer.lr=1e30", "trainer.precision=bf16-mixed", f"hydra.run.dir={tmp_path}/run"]
    assert main(["train", *words]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("anomalib-rd: train/loss is ") and " of epoch 1: " in line
    assert "lower optimizer.lr or train with trainer.precision=32-true; losses in" in line


def test_a_multirun_writes_the_losses_of_a_failure(mvtec_root, tmp_path, capfd):
    words = ["data=mvtec", f"data.root={mvtec_root}", "data.category=cloth", "data.num_workers=0"]
    words += ["data.image_size=[64,64]", "trainer=cpu", "logger=none", *BASE]
    with pytest.raises(SystemExit) as stop:
        main(["train", "-m", *words, "optimizer.lr=1e30", f"hydra.sweep.dir={tmp_path}/s"])
    assert stop.value.code == 1
    (failure,) = (tmp_path / "s").rglob("failure.json")
    assert len(json.loads(failure.read_text())["batch_losses"]) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("batch", [0, 2])
def test_the_first_bad_batch_is_named(bad, batch):
    losses = [torch.tensor(value) for value in (1.0, 2.0, 3.0, bad)]
    losses[batch] = torch.tensor(bad)
    with pytest.raises(NotFiniteError, match=f"batch {batch + 1} of 4 of epoch 7") as error:
        require_finite_training(losses, [torch.ones(2)], 7, [0.5], "advice")
    assert error.value.details["loss_curve"] == [0.5]
    require_finite_training(losses[:1] if batch else losses[1:3], [torch.ones(2)], 7, [], "")
