"""An interrupted and resumed run equals an uninterrupted one."""

import logging
import shutil
import signal
import time

import lightning as L
import pytest
import torch
from interrupting import PowerCutError, stopping

from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_record
from anomalib_rd.training import checkpoints
from anomalib_rd.training.build import identify_run, make_data, make_module
from anomalib_rd.training.checkpoints import AtomicCheckpointIO, find_resume_point, saved_epochs
from anomalib_rd.training.train import train

# 6 training images: two batches an epoch, the second is short.
BASE = (
    "model=fmg_rd",
    "trainer.max_epochs=4",
    "data.train_batch_size=4",
    "report.heatmaps=0",
    "callbacks.checkpoint.every_s=0",
)
# The test curve's points lie further apart than the checkpoints.
EVERY_OTHER = ("trainer.check_val_every_n_epoch=2",)


@pytest.fixture
def run(compose_config, tmp_path):
    """Train in a folder; returns the folder."""

    def start(folder, *overrides):
        path = tmp_path / folder
        train(compose_config(*BASE, f"run_dir={path}", *overrides))
        return path

    return start


@pytest.fixture(scope="module")
def kept_runs(tmp_path_factory):
    """The folder of runs that several tests share."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def whole(run, kept_runs):
    """The results of the uninterrupted run."""
    folder = kept_runs / "whole"
    if not folder.exists():
        run(folder)
    return leaving(folder)


@pytest.fixture
def cut(run, kept_runs, tmp_path):
    """A copy of a run interrupted in its third epoch."""
    folder = kept_runs / "cut"
    if not folder.exists():
        with pytest.raises(PowerCutError):
            run(folder, *stopping(kept_runs / "marker"))
    return shutil.copytree(folder, tmp_path / "cut")


def leaving(folder):
    """Everything that must be equal: metrics, scores, weights, learning rate."""
    kept = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    record = read_record(folder)
    return {
        "metrics": record["metrics"],
        "curve": record["test_curve"],
        "loss": record["loss_curve"],
        "epochs": record["protocol"]["epochs"],
        "scores": (folder / "scores.csv").read_bytes(),
        "weights": {name: value.numpy().tobytes() for name, value in kept["state_dict"].items()},
        "lr": kept["optimizer_states"][0]["param_groups"][0]["lr"],
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["speed.feature_cache=off", "data.num_workers=1"],
        ["speed.feature_cache=host", "scheduler=cosine"],
        ["speed=off", "scheduler=one_cycle", "test_during_training=true", *EVERY_OTHER],
        ["model.ema_decay=0.98", "test_during_training=true", *EVERY_OTHER],
    ],
    ids=["workers without cache", "cosine with cache", "one cycle with test curve", "average"],
)
def test_a_run_interrupted_within_an_epoch_ends_with_the_same_bits(run, tmp_path, overrides):
    whole = run("whole", *overrides)
    stop = stopping(tmp_path / "marker")
    with pytest.raises(PowerCutError):
        run("cut", *overrides, *stop)
    assert not (tmp_path / "cut/result.json").exists()
    torch.rand(7)  # whatever the new process has drawn before
    cut = run("cut", *overrides, *stop)
    assert leaving(cut) == leaving(whole)
    record = read_record(cut)
    assert record["protocol"]["resumed_from_epoch"] == 2
    assert read_record(whole)["protocol"]["resumed_from_epoch"] is None
    trained, seconds = 2 * 6, record["duration_s"]["train"]
    assert record["images_per_s"]["train"] == pytest.approx(trained / seconds)


def test_a_run_interrupted_twice_ends_with_the_same_bits(run, tmp_path):
    whole = run("whole", "scheduler=cosine")
    for epoch in (1, 3):
        with pytest.raises(PowerCutError):
            run("cut", "scheduler=cosine", *stopping(tmp_path / f"{epoch}", epoch=epoch))
    cut = run("cut", "scheduler=cosine")
    assert leaving(cut) == leaving(whole)
    assert read_record(cut)["protocol"]["resumed_from_epoch"] == 3


@pytest.mark.parametrize("decay", ["null", "0.98"])
def test_a_run_interrupted_at_the_test_trains_no_more(run, tmp_path, monkeypatch, decay):
    whole = leaving(run("whole", f"model.ema_decay={decay}"))
    with pytest.raises(PowerCutError):
        run("cut", f"model.ema_decay={decay}", *stopping(tmp_path / "marker", epoch=None))

    def refuse(*_, **__):
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr("anomalib_rd.training.feature_cache.cache_features", refuse)
    cut = run("cut", f"model.ema_decay={decay}")
    assert leaving(cut) == whole
    record = read_record(cut)
    assert record["protocol"]["resumed_from_epoch"] == 4
    assert record["images_per_s"]["train"] is None


def rewrite(folder, change):
    path = folder / "checkpoints/last.ckpt"
    kept = torch.load(path, weights_only=True)
    change(kept)
    torch.save(kept, path)


def shrink(kept):
    name = max(kept["state_dict"], key=lambda name: kept["state_dict"][name].numel())
    kept["state_dict"][name] = kept["state_dict"][name][:1]


DAMAGES = {
    "cut off": lambda folder: (folder / "checkpoints/last.ckpt").write_bytes(
        (folder / "checkpoints/last.ckpt").read_bytes()[:5000]
    ),
    "empty": lambda folder: (folder / "checkpoints/last.ckpt").write_bytes(b""),
    "of another version": lambda folder: rewrite(folder, lambda kept: kept.pop("random_states")),
    "of other networks": lambda folder: rewrite(folder, shrink),
    "without the training's state": lambda folder: rewrite(
        folder, lambda kept: kept.pop("optimizer_states")
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unusable_checkpoint_is_not_resumed_and_gets_one_warning(
    compose_config, cut, caplog, damage
):
    DAMAGES[damage](cut)
    cfg = compose_config(*BASE, f"run_dir={cut}")
    module = make_module(cfg)
    identity = identify_run(cfg, module, make_data(cfg))
    with caplog.at_level(logging.WARNING, "anomalib_rd"):
        assert find_resume_point(cut, cfg, module, identity) is None
    (warning,) = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert "last.ckpt" in warning


def test_the_run_with_a_damaged_checkpoint_starts_anew(run, cut, whole):
    DAMAGES["cut off"](cut)
    assert leaving(run("cut")) == whole
    assert read_record(cut)["protocol"]["resumed_from_epoch"] is None


def test_a_checkpoint_of_another_config_is_refused_by_name(run, cut):
    before = (cut / "checkpoints/last.ckpt").read_bytes()
    with pytest.raises(UserError) as refused:
        run("cut", "optimizer.lr=0.1", "seed=7", "loss=pixel_cosine", "model.masking.ratio=0.5")
    line = str(refused.value)
    assert "optimizer.lr: saved 0.005, now 0.1" in line and "hydra.run.dir" in line
    assert (cut / "checkpoints/last.ckpt").read_bytes() == before


def test_keys_that_change_no_result_do_not_prevent_resuming(run, cut, whole):
    words = ("speed=off", "report.heatmaps=1", "data.num_workers=2", "logger=csv", "sweep=other")
    assert leaving(run("cut", *words)) == whole
    assert read_record(cut)["protocol"]["resumed_from_epoch"] == 2


def test_a_search_runs_anew(compose_config, cut):
    cfg = compose_config(
        *BASE, f"run_dir={cut}", "optimized_metric=train/loss", "trainer.max_epochs=1"
    )
    assert train(cfg) > 0
    assert read_record(cut)["protocol"]["resumed_from_epoch"] is None


def test_an_incomplete_checkpoint_never_replaces_a_complete_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints/last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, path)

    def half(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(3)}, path)
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(path)["a"], torch.ones(3))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_lightning_writes_checkpoints_atomically(run, tmp_path, monkeypatch):
    places = []
    write = checkpoints.write_atomically
    monkeypatch.setattr(
        checkpoints, "write_atomically", lambda path, w: (places.append(path), write(path, w))
    )
    run("run", "trainer.max_epochs=1")
    # The second time with the threshold, which training does not know.
    assert places == [tmp_path / "run/checkpoints/last.ckpt"] * 2


def test_a_resumed_run_continues_its_run_in_wandb(run, tmp_path):
    def ids():
        found = (tmp_path / "cut").glob("wandb/offline-run-*")
        return [path.name.rpartition("-")[2] for path in sorted(found, key=lambda p: p.name)]

    with pytest.raises(PowerCutError):
        run("cut", "logger=wandb", *stopping(tmp_path / "marker"))
    run("cut", "logger=wandb")
    assert len(set(ids())) == 1 and (tmp_path / "cut/wandb-id.txt").read_text().strip() in ids()
    (tmp_path / "cut/checkpoints/last.ckpt").unlink()
    run("cut", "logger=wandb")
    assert len(set(ids())) == 2


@pytest.mark.parametrize(("every_s", "epochs"), [(0, [0, 1, 2, 3]), (1000, [3])])
def test_checkpoints_keep_their_interval_and_the_last_epoch_has_one(
    run, monkeypatch, every_s, epochs
):
    written = []

    def keep(self, checkpoint, path, storage_options=None):
        written.append(checkpoint["epoch"])

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", keep)
    run("run", f"callbacks.checkpoint.every_s={every_s}")
    assert written == epochs


def as_in_a_shell(number):
    """The exception with which a signal ends a run."""
    return KeyboardInterrupt if number == signal.SIGINT else SystemExit


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("grace", "epochs"), [(10, 3), (0, 2)], ids=["short epochs", "long epochs"]
)
def test_signal_saves_the_last_finished_epoch(
    run, whole, tmp_path, monkeypatch, number, grace, epochs
):
    """No checkpoint is due: a short epoch ends first; the last long one is in memory."""
    monkeypatch.setattr(checkpoints, "GRACE", grace)
    handlers = [signal.getsignal(n) for n in checkpoints.SIGNALS]
    words = ("callbacks.checkpoint.every_s=1000", *stopping(tmp_path / "marker", signal=number))
    with pytest.raises(as_in_a_shell(number)) as stop:
        run("cut", *words)
    if number == signal.SIGTERM:
        assert stop.value.code == 128 + signal.SIGTERM
    assert saved_epochs(tmp_path / "cut") == epochs
    assert [signal.getsignal(n) for n in checkpoints.SIGNALS] == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    cut = run("cut", *words)
    assert leaving(cut) == whole
    assert read_record(cut)["protocol"]["resumed_from_epoch"] == epochs


class Signals(L.Callback):
    """Sends signals to this process in an epoch, some seconds apart, and waits for the end."""

    def __init__(self, epoch, after):
        self.epoch, self.after = epoch, after

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            for seconds in self.after:
                time.sleep(seconds)
                signal.raise_signal(signal.SIGINT)
            time.sleep(20)


@pytest.mark.parametrize(
    ("grace", "epoch", "after"),
    [(10, 1, [0, 0.3]), (1, 1, [0]), (10, 0, [0])],
    ids=["second signal", "time is over", "no epoch finished"],
)
def test_a_signal_that_must_stop_at_once(run, tmp_path, monkeypatch, grace, epoch, after):
    monkeypatch.setattr(checkpoints, "GRACE", grace)
    monkeypatch.setattr(checkpoints, "SAME_SIGNAL", 0.1)
    words = (
        "callbacks.checkpoint.every_s=1000",
        f"+callbacks.signals._target_={__name__}.Signals",
        f"+callbacks.signals.epoch={epoch}",
        f"+callbacks.signals.after={after}",
    )
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run("cut", *words)
    assert time.monotonic() - started < 15
    assert saved_epochs(tmp_path / "cut") == 0


def test_an_error_saves_the_last_long_epoch(run, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "GRACE", 0)
    with pytest.raises(PowerCutError):
        run("cut", "callbacks.checkpoint.every_s=1000", *stopping(tmp_path / "marker"))
    assert saved_epochs(tmp_path / "cut") == 2
