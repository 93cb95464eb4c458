"""The moving average of the weights, against one written out here."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_data import make_mvtec

from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_record
from anomalib_rd.training.build import make_callbacks, make_data, make_module, make_trainer
from anomalib_rd.training.callbacks import LossMonitor, MovingAverage
from anomalib_rd.training.module import TEACHER
from anomalib_rd.training.train import train

BASE = ("model=fmg_rd", "data.train_batch_size=2", "trainer.max_epochs=3", "model.ema_decay=0.98")


class Watching(Callback):
    """Records the weights after each step, and those that are validated."""

    def __init__(self):
        self.after, self.judged = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.after.append({k: v.clone() for k, v in module.state_without_teacher().items()})

    def on_validation_epoch_start(self, trainer, module):
        self.judged.append({k: v.clone() for k, v in module.state_without_teacher().items()})


def expected(after, decay):
    average = {}
    for t, state in enumerate(after):
        d = min(decay, (1 + t) / (10 + t)) if t else 0.0
        for name, value in state.items():
            if value.is_floating_point():
                average[name] = d * average.get(name, 0.0) + (1 - d) * value.double()
    return average


def same(state, average):
    assert average
    for name, value in average.items():
        torch.testing.assert_close(state[name].double(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decay", [0.98, 0.3])
def test_the_evaluated_and_saved_weights_are_the_average_by_hand(compose_config, decay):
    cfg = compose_config(*BASE, f"model.ema_decay={decay}", "test_during_training=true")
    torch.manual_seed(0)
    module = make_module(cfg)
    trainer = make_trainer(cfg, make_callbacks(cfg))
    trainer.callbacks.append(watching := Watching())
    trainer.fit(module, datamodule=make_data(cfg))
    steps = len(watching.after) // 3
    assert steps > 1 and len(watching.judged) == 3
    for epoch, judged in enumerate(watching.judged, 1):
        same(judged, expected(watching.after[: epoch * steps], decay))
    same(module.state_without_teacher(), expected(watching.after, decay))


def test_training_continues_with_the_weights_of_the_last_step(compose_config):
    """Validating the average after each epoch does not change the training."""

    def losses(*words):
        cfg = compose_config(*BASE[:3], *words)
        torch.manual_seed(0)
        module = make_module(cfg)
        losses = LossMonitor()
        trainer = make_trainer(cfg, [*make_callbacks(cfg), losses])
        trainer.fit(module, datamodule=make_data(cfg))
        return losses.curve

    plainly = losses()
    assert (
        losses("model.ema_decay=0.98")
        == plainly
        == losses("model.ema_decay=0.98", "test_during_training=true")
    )


@pytest.mark.parametrize("scoring", ["rd4ad", "standardised"])
def test_the_last_point_of_the_curves_is_the_result(compose_config, tmp_path, scoring):
    root = make_mvtec(tmp_path / "twelve", categories=("cloth",), train=12)
    words = (f"model/scoring={scoring}", "test_during_training=true", "validation.kind=synthetic")
    train(compose_config(*BASE, *words, f"data.root={root}", f"run_dir={tmp_path}"))
    record = read_record(tmp_path)
    last = {k: v for k, v in record["test_curve"][-1].items() if k != "epoch"}
    assert last == pytest.approx({k: record["metrics"][k] for k in last}, nan_ok=True)
    kept = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    for key in ("state_dict", "current_model_state"):
        assert kept[key] and not any(name.startswith(TEACHER) for name in kept[key])


@pytest.mark.parametrize("decay", [0, 1, -0.1, float("nan")])
def test_another_decay_is_refused(decay):
    with pytest.raises(UserError, match=r"model\.ema_decay"):
        MovingAverage(decay)
