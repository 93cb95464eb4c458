"""The switches of conf/speed: exact ones change no bit, the others only the rounding."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_rd.data import images
from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_record
from anomalib_rd.training.build import make_callbacks, make_data, make_module, make_trainer
from anomalib_rd.training.callbacks import LossMonitor
from anomalib_rd.training.config_checks import check_config
from anomalib_rd.training.feature_cache import FeatureCaching
from anomalib_rd.training.train import train


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ANOMALIB_RD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(compose_config, tmp_path):
    """Train; returns the record, the scores' bytes and the weights."""

    def start(folder, *overrides):
        path = tmp_path / folder
        train(compose_config(*overrides, f"run_dir={path}"))
        state = torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        return read_record(path), (path / "scores.csv").read_bytes(), state

    return start


@pytest.mark.parametrize(
    ("model", "switches"),
    [
        ("rd4ad", [[]]),
        (
            "fmg_rd",  # draws random numbers in every step
            [
                ["speed=off", "speed.image_cache=true"],
                ["speed=off", "speed.feature_cache=device"],
                ["speed.feature_cache=host", "data.num_workers=2"],
            ],
        ),
    ],
)
def test_exact_switches_change_no_bit(run, model, switches):
    # 6 images: the last batch is short.
    base = [f"model={model}", "data.train_batch_size=4", "report.heatmaps=0"]
    record, scores, weights = run("plain", *base, "speed=off")
    for number, overrides in enumerate(switches):
        other, other_scores, other_weights = run(f"switched{number}", *base, *overrides)
        assert other["metrics"] == record["metrics"], overrides
        assert other_scores == scores, overrides
        assert all(torch.equal(weights[key], other_weights[key]) for key in weights), overrides


def test_a_second_run_on_the_same_data_decodes_nothing(run, monkeypatch):
    _, scores, _ = run("first", "model=rd4ad")

    def refuse(path):
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(images, "_open", refuse)
    _, again, _ = run("second", "model=rd4ad", "seed=0")
    assert again == scores
    run("third", "model=fmg_rd", "seed=1", "speed.feature_cache=off")
    with pytest.raises(AssertionError, match="decoded again"):
        run("fourth", "model=rd4ad", "speed=off")


@pytest.mark.parametrize(
    "switch", ["speed.channels_last=true", "speed.fused=true", "trainer.precision=bf16-mixed"]
)
def test_inexact_switches_change_only_the_rounding(compose_config, switch):
    def first_loss_and_step(*overrides):
        cfg = compose_config("model=rd4ad", "speed.feature_cache=off", *overrides)
        torch.manual_seed(0)
        module = make_module(cfg)
        make_trainer(cfg, make_callbacks(cfg)).fit(module, datamodule=make_data(cfg))
        return module.trainer.callback_metrics["train/loss"]

    one_epoch = ["trainer.max_epochs=1", "optimizer.lr=0.0001"]
    exact, inexact = first_loss_and_step(*one_epoch), first_loss_and_step(*one_epoch, switch)
    tolerance = 0.02 if "bf16" in switch else 1e-3
    assert inexact.item() == pytest.approx(exact.item(), rel=tolerance)


def test_channels_last_reaches_the_students_features(compose_config):
    cfg = compose_config("model=rd4ad", "speed=fast")
    module = make_module(cfg)
    distilled = module.distiller(torch.zeros((2, 3, 64, 64), dtype=torch.uint8))
    for scale in (*distilled.teacher_features, *distilled.student_features):
        assert scale.is_contiguous(memory_format=torch.channels_last)
    assert module.configure_optimizers().defaults["fused"] is True


def test_loss_is_float32_under_bf16(compose_config):
    cfg = compose_config("model=rd4ad", "speed=fast")
    module = make_module(cfg)
    with torch.autocast("cpu", torch.bfloat16):
        distilled = module.distiller(torch.zeros((2, 3, 64, 64), dtype=torch.uint8))
        loss = module.loss(*distilled)
    assert distilled.student_features[0].dtype == torch.bfloat16 and loss.dtype == torch.float32
    whole = [[f.float() for f in scale] for scale in distilled]
    assert loss.item() == module.loss(*whole).item()


@pytest.mark.slow
@pytest.mark.timeout(1000)  # where the cores are shared
def test_compiled_training_has_the_same_loss(compose_config):
    def loss(*overrides):
        words = ["model=rd4ad", "model/masking=random", "optimizer.lr=0.0001"]
        cfg = compose_config(*words, *overrides)
        torch.manual_seed(0)
        module = make_module(cfg)
        make_trainer(cfg, make_callbacks(cfg)).fit(module, datamodule=make_data(cfg))
        return module.trainer.callback_metrics["train/loss"].item(), set(module.state_dict())

    (eager, keys), (compiled, compiled_keys) = loss(), loss("speed.compile=true")
    assert compiled == pytest.approx(eager, rel=1e-3)
    assert compiled_keys == keys


def test_a_transform_excludes_the_feature_cache(compose_config):
    flip = "data.transform={_target_: torchvision.transforms.v2.RandomHorizontalFlip}"
    cfg = compose_config(flip, "speed.feature_cache=device")
    with pytest.raises(UserError, match=r"speed\.feature_cache=device"):
        make_callbacks(cfg)
    auto = make_callbacks(compose_config(flip))
    assert [c.target for c in auto if isinstance(c, FeatureCaching)] == ["off"]


class Reads(TorchDispatchMode):
    """Counts how often a tensor's value is read into Python, where the host waits for a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_its_loss(compose_config):
    def reads(batch_size):
        # Plain SGD: Adam on a CPU reads its own step counters.
        cfg = compose_config(
            "model=rd4ad",
            "trainer.max_epochs=1",
            "speed.image_cache=false",
            f"data.train_batch_size={batch_size}",
        )
        cfg.optimizer = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.01}
        module = make_module(cfg)
        trainer = make_trainer(cfg, [*make_callbacks(cfg), LossMonitor()])
        with Reads() as mode:
            trainer.fit(module, datamodule=make_data(cfg))
        return mode.count, trainer.global_step

    (few, steps), (many, more_steps) = reads(6), reads(2)
    assert (steps, more_steps) == (1, 3)
    assert many == few


def test_streamed_pixel_metrics_of_a_run_are_within_their_bounds(run, tmp_path):
    exact, scores, _ = run("exact", "model=rd4ad", "report.heatmaps=8")
    streamed, same_scores, _ = run(
        "streamed", "model=rd4ad", "report.heatmaps=8", "metrics.max_bins=1000"
    )
    assert same_scores == scores and exact["bounds"] == {}
    for name, (low, high) in streamed["bounds"].items():
        assert low <= exact["metrics"][name] <= high and high - low < 0.1
    assert set(streamed["bounds"]) == {n for n in exact["metrics"] if not n.startswith("image")}
    drawn = {p.name: p.read_bytes() for p in (tmp_path / "exact" / "heatmaps").glob("*.png")}
    again = {p.name for p in (tmp_path / "streamed" / "heatmaps").glob("*.png")}
    assert set(drawn) == again


def test_streamed_metrics_have_a_reason_if_undefined(run, mvtec_copy):
    next((mvtec_copy / "cloth" / "ground_truth").rglob("*.png")).unlink()
    record, *_ = run("run", f"data.root={mvtec_copy}", "metrics.max_bins=1000", "model=untrained")
    assert "1 of 4 defect images have no ground-truth mask" in record["undefined"]["aupro"]
    assert math.isnan(record["metrics"]["aupro"])


def test_per_image_pro_needs_the_maps_that_streaming_drops(compose_config):
    cfg = compose_config("metrics.max_bins=1000", "metrics.pro_rd4ad=true")
    with pytest.raises(UserError, match=r"pro_rd4ad.*max_bins"):
        check_config(cfg)
