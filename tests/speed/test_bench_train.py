"""The contestants of ``bench train`` in this process: equal networks and results."""

from itertools import pairwise

import pytest
import torch

from anomalib_rd.networks import DistillationOutput, FlattenedCosine
from anomalib_rd.results.record import read_record
from anomalib_rd.training.build import make_data, make_module, plain_config
from anomalib_rd.training.train import train
from experiments.speed.bench.plain_loop import CompleteTeacher, PlainImages, rd4ad_loss
from experiments.speed.bench.train import VARIANTS, compete, select_variants

EPOCHS = 2


class Recorder:
    """A turn that begins at once; records the calls."""

    def __init__(self):
        self.calls = []
        self.synchronize = lambda: None

    def ready(self):
        self.calls.append("ready")

    def begin(self):
        self.calls.append("begin")

    def end(self):
        self.synchronize()
        self.calls.append("end")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    # compete() sets it for its process, which here is the tests' own.
    monkeypatch.setenv("ANOMALIB_RD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def compose(compose_config, tiny_teacher):
    fixed = [
        *tiny_teacher,
        "data.train_batch_size=4",  # 6 images: the last batch is short
        f"trainer.max_epochs={EPOCHS}",
        "~callbacks.progress",
        "+trainer.enable_progress_bar=false",
        "report.heatmaps=0",
        "report.gallery=0",
    ]
    return lambda *overrides: compose_config(*fixed, *overrides)


@pytest.fixture
def contest(compose, tmp_path):
    """Run a contestant; gives its result and its calls."""

    def start(name, *overrides):
        (variant,) = select_variants([name], cuda=False)
        config = plain_config(compose(*overrides, *variant.overrides, f"run_dir={tmp_path / name}"))
        recorder = Recorder()
        return compete(recorder, variant.loop, config), recorder.calls

    return start


def test_exact_contestants_and_a_run_agree_to_the_bit(contest, compose, tmp_path):
    names = ("plain-loss", "lightning", "image-cache", "feature-cache")
    answers = {name: contest(name, "model=rd4ad")[0] for name in names}
    train(compose("model=rd4ad", f"run_dir={tmp_path / 'run'}"))
    metrics = read_record(tmp_path / "run")["metrics"]
    for name, answer in answers.items():
        assert answer["metrics"] == metrics, name
    flops = {name: answer["step_flops"] for name, answer in answers.items()}
    # Without the last stage, and then without the teacher.
    assert flops["plain-loss"] > flops["lightning"] == flops["image-cache"]
    assert flops["image-cache"] > flops["feature-cache"] > 0
    assert {answer["step_images"] for answer in answers.values()} == {4}


def test_random_masks_are_the_same_in_the_plain_loop(contest):
    plain_loop, ours = (
        contest(name, "model=fmg_rd", "model.ema_decay=null")[0]
        for name in ("plain-loss", "lightning")
    )
    assert plain_loop["metrics"] == ours["metrics"]


@pytest.mark.parametrize("name", ["plain", "feature-cache"])
def test_every_epoch_is_a_turn(contest, name):
    answer, calls = contest(name, "model=rd4ad")
    assert calls == ["ready", *["begin", "end"] * EPOCHS, "begin"]
    assert answer["peak_rss"] > 2**20 and answer["peak_cuda"] is None
    assert all(0 <= value <= 1 for value in answer["metrics"].values())


def test_plain_loss_equals_ours_up_to_rounding():
    torch.manual_seed(0)
    features, restored = ([torch.randn(3, c, 8, 8) for c in (4, 8)] for _ in range(2))
    distilled = DistillationOutput(features, restored)
    torch.testing.assert_close(rd4ad_loss(distilled), FlattenedCosine()(*distilled))


def test_the_complete_teacher_gives_the_same_features(compose, mvtec_root):
    cfg = compose("model=rd4ad")
    data = make_data(cfg)
    teacher = make_module(cfg).distiller.teacher
    before = torch.get_rng_state()
    complete = CompleteTeacher(teacher)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(list(complete.parameters())) > len(list(teacher.parameters()))
    images = PlainImages([sample.path for sample in data.split.train], (64, 64), teacher)
    ours = torch.stack([item["image"] for item in data.train_set])
    theirs = torch.stack([images[i] for i in range(len(images))])
    assert torch.equal(theirs, teacher.normalize(ours))
    with torch.no_grad():
        features = complete(theirs)
    assert all(torch.equal(a, b) for a, b in zip(features, teacher(ours), strict=True))


def test_switches_add_up(compose):
    """Each contestant adds one switch; two of them are the named settings."""
    on = [
        {key: value for key, value in compose(*variant.overrides).speed.items() if value}
        for variant in VARIANTS
    ]
    for before, after in pairwise(on[2:]):
        changed = {key for key in after if before.get(key) != after[key]}
        assert len(changed) == 1 and set(before) <= set(after)
    by_name = dict(zip((variant.name for variant in VARIANTS), VARIANTS, strict=True))
    assert compose(*by_name["feature-cache"].overrides).speed == compose().speed
    assert compose(*by_name["bf16"].overrides).speed == compose("speed=fast").speed
