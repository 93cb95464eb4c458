"""DDP in two processes on the CPU (gloo): a run, a multirun, and failures in one process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import lightning as L
import numpy as np
import pytest
import torch
from failing_work import fail_in_second, wait_long
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import ModelCheckpoint
from small_data import make_mvtec

from anomalib_rd.cli.config import conf_dir, register_resolvers
from anomalib_rd.errors import UserError
from anomalib_rd.results.sweeps import read_running
from anomalib_rd.training import build
from anomalib_rd.training import train as run
from anomalib_rd.training.callbacks import LossMonitor
from anomalib_rd.training.checkpoints import saved_epochs
from anomalib_rd.training.ddp import processes_to_start, run_in_processes

DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
# With one image a batch there are none of the other category in it.
UNIFIED = [
    *("data.unified=true", "data.category=[cloth,cable]"),
    *("data.test_batch_size=1", "metrics.max_bins=65536"),
]
SMALL = [
    *("data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "data.num_workers=0"),
    *("trainer.max_epochs=2", "logger=none", "callbacks=none", "report.heatmaps=0"),
]


def composed(words):
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[*SMALL, "run_dir=unused", *words])


def judged(words, checkpoint):
    """Scores and metrics of a checkpoint on the seven test images."""
    cfg = composed(words)
    data = build.make_data(cfg)
    evaluator, module = build.make_evaluator(cfg, data), load_module(cfg, checkpoint)
    build.make_trainer(cfg, [evaluator]).test(module, datamodule=data, verbose=False)
    parts = {f"{c}/{n}": v for c, r in evaluator.results.items() for n, v in r.metrics.items()}
    return evaluator.predictions.scores.tolist(), evaluator.result.metrics | parts


def load_module(cfg, checkpoint):
    module = build.make_module(cfg)
    saved = torch.load(checkpoint, weights_only=True)
    module.on_load_checkpoint(saved)
    module.load_state_dict(saved["state_dict"])
    return module


def trained(words, folder):
    """Scores after a training in this process and the others."""
    run.train(composed([*words, f"run_dir={folder}"]))
    torch.distributed.barrier()
    return (folder / "scores.csv").read_text()


def validated(words, checkpoint):
    """Metrics of a checkpoint on five held-out images and on the test images, and their indices."""
    cfg = composed(
        [
            *words,
            "validation.kind=synthetic",
            "validation.fraction=0.5",
            "test_during_training=true",
        ]
    )
    data = build.make_data(cfg)
    evaluator, module = build.make_evaluator(cfg, data), load_module(cfg, checkpoint)
    build.make_trainer(cfg, [evaluator]).validate(module, datamodule=data, verbose=False)
    seen = list(data.val_dataloader()["val"].sampler)
    return evaluator.validation, evaluator.test_curve[-1], seen


class Seen(L.Callback):
    """Records loss, size and coarsest masks of each batch of this process."""

    def __init__(self):
        self.losses, self.sizes, self.masks = [], [], []

    def on_fit_start(self, trainer, module):
        draw_masks = module.distiller.masking.draw_masks

        def watched(features):
            (masks,) = mask_sets = draw_masks(features)
            self.masks.append(masks[-1])
            return mask_sets

        module.distiller.masking.draw_masks = watched

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.sizes.append(len(batch["index"]))


def seen_in_training(words, folder, resume=None):
    """Batches of four epochs in this process, logged values and weights."""
    words = [*words, "model=fmg_rd", "model.ema_decay=null", "data.train_batch_size=2"]
    words += ["trainer.max_epochs=4", "model.masking.ratio=0.4", f"run_dir={folder}"]
    cfg = composed(words)
    L.seed_everything(cfg.seed, verbose=False)
    data = build.make_data(cfg)
    module, losses, seen = build.make_module(cfg), LossMonitor(), Seen()
    trainer = build.make_trainer(cfg, [*build.make_callbacks(cfg), losses])
    each = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer.callbacks += [seen, each]
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    torch.distributed.barrier()
    return {
        "losses": seen.losses,
        "sizes": seen.sizes,
        "masks": [mask.numpy() for mask in seen.masks],
        "curve": losses.curve,
        "logged": float(trainer.callback_metrics["train/loss"]),
        "weights": {name: value.numpy() for name, value in module.state_without_teacher().items()},
        "next": torch.rand(3).tolist(),
    }


def in_one_process(root, ten, checkpoint, folder):
    """Everything that the tests need from a group of processes, so that one group is enough."""
    words = [*DDP, f"data.root={root}"]
    return {
        "threads": torch.get_num_threads(),
        "exact": judged(words, checkpoint),
        "streamed": judged([*words, "metrics.max_bins=65536"], checkpoint),
        "unified": judged([*words, *UNIFIED], checkpoint),
        "cached": trained([*words, "speed.feature_cache=host"], folder / "cached"),
        "not cached": trained([*words, "speed.feature_cache=off"], folder / "not"),
        "validated": validated([*DDP, f"data.root={ten}"], checkpoint),
        "whole": seen_in_training([*DDP, f"data.root={ten}"], folder / "whole"),
        "resumed": seen_in_training(
            [*DDP, f"data.root={ten}"], folder / "resumed", folder / "whole/epoch=1.ckpt"
        ),
    }


@pytest.fixture(scope="module")
def one_and_two(mvtec_root, tmp_path_factory):
    """Evaluations of a checkpoint by this process and by two processes."""
    folder = tmp_path_factory.mktemp("ddp")
    ten = make_mvtec(folder / "ten", categories=("cloth",), train=10)
    words = ["trainer=cpu", f"data.root={mvtec_root}"]
    saving = "+callbacks.checkpoint._target_=lightning.pytorch.callbacks.ModelCheckpoint"
    dirpath = f"+callbacks.checkpoint.dirpath={folder}"
    filename = "+callbacks.checkpoint.filename=last"
    run.train(composed([*words, saving, dirpath, filename, f"run_dir={folder / 'one'}"]))
    checkpoint = folder / "last.ckpt"
    one = {
        "exact": judged(words, checkpoint),
        "streamed": judged([*words, "metrics.max_bins=65536"], checkpoint),
        "unified": judged([*words, *UNIFIED], checkpoint),
        "validated": validated(["trainer=cpu", f"data.root={ten}"], checkpoint),
    }
    before = signal.getsignal(signal.SIGINT)
    two = run_in_processes(2, in_one_process, mvtec_root, ten, checkpoint, folder)
    assert signal.getsignal(signal.SIGINT) is before
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "streamed", "unified"])
def test_two_processes_evaluate_a_checkpoint_like_one(one_and_two, kind):
    one, two = one_and_two
    scores, metrics = one[kind]
    assert len(scores) == (14 if kind == "unified" else 7)
    for rank in (0, 1):  # none repeated, none dropped, all in order
        assert two[rank][kind][0] == pytest.approx(scores, abs=1e-6)
        assert two[rank][kind][1] == pytest.approx(metrics, abs=1e-6)


def test_two_processes_validate_every_held_out_image_once(one_and_two):
    one, two = one_and_two
    validation, curve, seen = one["validated"]
    assert seen == [0, 1, 2, 3, 4] and validation != pytest.approx(curve)
    assert sorted(two[0]["validated"][2] + two[1]["validated"][2]) == seen
    for rank in (0, 1):
        assert two[rank]["validated"][0] == pytest.approx(validation, abs=1e-6)
        assert two[rank]["validated"][1] == pytest.approx(curve, abs=1e-6)


def test_the_feature_cache_changes_no_bit_in_two_processes(one_and_two):
    _, two = one_and_two
    assert two[0]["cached"] == two[0]["not cached"]
    assert len(two[0]["cached"].splitlines()) == 1 + 7


def test_the_loss_is_the_mean_over_the_images_of_all_processes(one_and_two):
    _, two = one_and_two
    ranks = [two[rank]["whole"] for rank in (0, 1)]
    for rank in ranks:
        assert rank["sizes"] == [2, 2, 1] * 4  # ten images, five a process
    for epoch in range(4):
        batches = slice(3 * epoch, 3 * epoch + 3)
        losses = np.concatenate([rank["losses"][batches] for rank in ranks])
        sizes = np.concatenate([rank["sizes"][batches] for rank in ranks])
        mean = np.average(losses, weights=sizes)
        own = np.average(losses[:3], weights=sizes[:3])
        assert mean != pytest.approx(own, rel=1e-5)
        for rank in ranks:
            assert rank["curve"][epoch] == pytest.approx(mean, rel=1e-6)
    assert ranks[0]["logged"] == ranks[1]["logged"] == ranks[0]["curve"][-1]


def test_each_process_draws_its_own_masks(one_and_two):
    _, two = one_and_two
    first, second = (two[rank]["whole"]["masks"] for rank in (0, 1))
    assert len(first) == len(second) == 12
    pairs = list(zip(first, second, strict=True))
    assert sum(not np.array_equal(a, b) for a, b in pairs) > 6
    assert all(a.sum() == b.sum() for a, b in pairs)  # as much is hidden


def test_a_resumed_run_of_two_processes_equals_the_uninterrupted_one(one_and_two):
    _, two = one_and_two
    for rank in (0, 1):
        whole, resumed = two[rank]["whole"], two[rank]["resumed"]
        assert len(resumed["masks"]) == 6  # of the last two epochs
        for one, again in zip(whole["masks"][6:], resumed["masks"], strict=True):
            assert np.array_equal(one, again)
        assert resumed["curve"] == whole["curve"] and resumed["next"] == whole["next"]
        for name, value in whole["weights"].items():
            assert np.array_equal(value, resumed["weights"][name]), name
    assert two[0]["whole"]["next"] != two[1]["whole"]["next"]


def test_the_threads_are_divided_among_the_processes(one_and_two):
    _, two = one_and_two
    assert all(two[rank]["threads"] == max(1, torch.get_num_threads() // 2) for rank in two)


@pytest.mark.parametrize(
    "kind, error, said",
    [
        ("mistake", UserError, "^mend this$"),
        pytest.param(
            *("defect", RuntimeError, "in process 1 of this run: ValueError: no good"),
            marks=pytest.mark.slow,
        ),
        pytest.param("killed", RuntimeError, "SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_a_failing_process_ends_the_others_and_its_error_is_raised(kind, error, said):
    with pytest.raises(error, match=said) as caught:
        run_in_processes(2, fail_in_second, kind, None)
    if kind == "defect":
        assert "fail_in_second" in "".join(caught.value.__notes__)


@pytest.mark.slow
def test_ctrl_c_ends_the_processes(tmp_path):
    def interrupt():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_in_processes(2, wait_long, tmp_path)


@pytest.mark.parametrize(
    "environment, count",
    [
        ({}, 2),
        # torchrun has started both
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, 1),
        ({"SLURM_JOB_NAME": "a", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, 1),
        # one task of Slurm's with two devices: what hydra/launcher=slurm gives a job
        ({"SLURM_JOB_NAME": "a", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}, 2),
    ],
)
def test_processes_are_started_unless_a_launcher_has_started_them(
    monkeypatch, mvtec_root, environment, count
):
    for name in ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "0")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = [f"data.root={mvtec_root}", "run_dir=none"]
    assert processes_to_start(composed([*words, *DDP])) == count
    assert processes_to_start(composed([*words, "trainer=cpu"])) == 1
    if not environment:
        with pytest.raises(UserError, match="by torchrun or srun"):
            processes_to_start(composed([*words, *DDP, "+trainer.num_nodes=2"]))


@pytest.mark.slow
def test_a_multirun_continues_after_a_job_that_failed_in_one_process(mvtec_copy, tmp_path):
    """Only one process reads the broken image of the first category."""
    make_mvtec(mvtec_copy, categories=("knot",))
    broken = mvtec_copy / "cloth/test/square/003.png"  # of seven, the first process reads it
    broken.write_bytes(broken.read_bytes()[:200])
    words = ["-m", *SMALL, *DDP, "data.category=cloth,knot", f"data.root={mvtec_copy}", "sweep=s"]
    done = subprocess.run(
        [sys.executable, "-m", "anomalib_rd", "train", *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    sweep = tmp_path / "multirun/s"
    (failure,) = [json.loads(p.read_text()) for p in sweep.glob("cloth/*/failure.json")]
    assert "003.png" in failure["error"]
    (result,) = sweep.rglob("result.json")
    record = json.loads(result.read_text())
    assert record["data"]["category"] == "knot" and record["protocol"]["epochs"] == 2
    assert len((result.parent / "scores.csv").read_text().splitlines()) == 1 + 7


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_epoch_of_all_processes(mvtec_root, tmp_path, number, status):
    """Ctrl-C reaches every process, Slurm's signal one; no checkpoint is due."""
    words = [*SMALL, *DDP, "trainer.max_epochs=500", "callbacks=default", "hydra.run.dir=run"]
    words += [f"data.root={mvtec_root}", "callbacks.checkpoint.every_s=1000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "anomalib_rd", "train", *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while (running := read_running(tmp_path / "run")) is None or not running.epoch:
            assert process.poll() is None
            time.sleep(0.1)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == status
    epochs = saved_epochs(tmp_path / "run")
    assert epochs >= running.epoch
    assert f"epoch {epochs}" in errors.strip().splitlines()[-1]
