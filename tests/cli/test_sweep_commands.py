"""The same multirun again: skips complete runs, resumes interrupted ones, runs the rest."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from interrupting import stopping
from small_data import make_mvtec

from anomalib_rd.cli import main
from anomalib_rd.cli.sweep import labels
from anomalib_rd.cli.train import resume_command
from anomalib_rd.results.runs_table import load_runs
from anomalib_rd.results.sweeps import RUNNING, read_states

SMALL = ["data=mvtec", "data.image_size=[64,64]", "data.num_workers=0", "trainer=cpu"]
SMALL += ["logger=none", "report.heatmaps=0", "report.html=false", "callbacks.checkpoint.every_s=0"]
QUICK = [*SMALL, "data.category=cloth", "model=untrained", "report.gallery=0"]
QUICK += ["model.teacher.name=test_efficientnet.r160_in1k", "model.teacher.weights=random"]
TESTS = Path(__file__).parents[1]


@pytest.fixture
def workdir(tmp_path, monkeypatch, mvtec_root):
    """An empty folder to work in, one thread, and the data where the environment says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MVTEC_ROOT", str(mvtec_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


@pytest.fixture
def sweep(workdir, capfd):
    """Run a multirun of that name in this process; gives its exit status, output and errors."""

    def start(*words):
        try:
            status = main(["train", "-m", *map(str, words), "sweep=s"])
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    start.folder = workdir / "multirun/s"
    return start


@pytest.fixture
def one_thread():
    """As many as the processes have: another number rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# As the command is, where `stopping` makes no other run.
COMMAND = "import interrupting, sys; from anomalib_rd.cli import main; sys.exit(main())"


def process(*words):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=280,
    )


def written(folder, name="result.json"):
    """When each of the sweep's files was written, by its run's folder."""
    found = sorted(folder.rglob(name))
    return {path.parent.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in found}


def contents(folder):
    """By category and schedule: metrics, scores, weights."""
    found = {}
    for path in folder.rglob("result.json"):
        record, run = json.loads(path.read_text()), path.parent
        state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        weights = {name: value.numpy().tobytes() for name, value in state.items()}
        schedule = record["config"]["scheduler"].get("_target_")
        found[schedule] = (record["metrics"], (run / "scores.csv").read_bytes(), weights)
    return found


@pytest.mark.slow
def test_a_killed_and_interrupted_sweep_ends_like_an_undisturbed_one(workdir, one_thread, capfd):
    """Two runs; SIGKILL within the first, Ctrl-C within the second, the same command thrice."""
    words = ["train", "-m", *SMALL, "data.category=cloth", "model=fmg_rd", "trainer.max_epochs=4"]
    words += ["scheduler=cosine,none", "data.train_batch_size=4"]
    assert main([*words, "sweep=whole"]) == 0
    folder = workdir / "multirun/cut"

    again = [*words, "sweep=cut"]
    killed = process(*again, *stopping(workdir / "first", signal=signal.SIGKILL))
    assert killed.returncode == -signal.SIGKILL
    cut, missing = read_states(folder)
    assert (cut.state, cut.running.epoch, missing.state) == ("interrupted", 2, "missing")

    # The first run goes on; in the second someone presses Ctrl-C. Without the feature cache.
    stop = stopping(workdir / "second", epoch=1, signal=signal.SIGINT)
    stopped = process(*again, *stop, "speed.feature_cache=off")
    assert stopped.returncode == 130 and "resumed after epoch 2 of 4" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    last = stopped.stderr.strip().splitlines()[-1]
    assert last.startswith("anomalib-rd: interrupted; ") and "epoch 1" in last
    assert "train -m data=mvtec" in last
    done, cut = read_states(folder)
    assert (done.state, cut.state, cut.running.epoch) == ("done", "interrupted", 1)
    first = written(folder)

    capfd.readouterr()
    assert main(again) == 0
    shown = capfd.readouterr().out
    assert "is complete: skipped" in shown and "resumed after epoch 1 of 4" in shown
    assert first.items() < written(folder).items()
    assert contents(folder) == contents(workdir / "multirun/whole") and len(contents(folder)) == 2
    assert {state.state for state in read_states(folder)} == {"done"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_sweep_and_the_last_line_names_the_epoch(sweep, number, status):
    words = [*SMALL, "data.category=cloth,cable", "trainer.max_epochs=3"]
    stop = stopping(sweep.folder.parents[1] / "marker", epoch=1, signal=number)
    ended, _, errors = sweep(*words, *stop)
    assert ended == status
    last = errors.strip().splitlines()[-1]
    assert "epoch 1" in last and "resume with: anomalib-rd train -m" in last
    first, second = read_states(sweep.folder)
    assert (first.state, first.running.epoch, second.state) == ("interrupted", 1, "missing")


SKIPPED = """
import json, sys
from anomalib_rd.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    print("status:", status)
print("loaded:", {"torch", "lightning", "wandb"} & set(sys.modules))
"""


@pytest.mark.slow
def test_a_complete_sweep_and_a_complete_run_end_without_torch(sweep):
    assert sweep(*QUICK, "seed=0,1")[0] == 0
    times = written(sweep.folder)
    assert len(times) == 2
    sweep_again = ["train", *QUICK, "seed=0,1", "sweep=s", "-m"]
    run_again = ["train", *QUICK, f"hydra.run.dir={sweep.folder / min(times)}"]
    command = [sys.executable, "-c", SKIPPED, json.dumps([sweep_again, run_again])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.count("status: 0") == 2, done.stderr
    assert "multirun/s" in done.stdout and "AUROC" in done.stdout
    assert "is complete: skipped" in done.stdout and "loaded: set()" in done.stdout
    assert written(sweep.folder) == times


def test_missing_runs_are_run_and_complete_ones_skipped(sweep):
    sweep(*QUICK, "seed=0")
    before = written(sweep.folder)
    status, out, _ = sweep(*QUICK, "seed=0,1", "report.heatmaps=1", "speed=off")
    assert status == 0 and out.count("is complete: skipped") == 1
    # Which job it is, of the skipped one too.
    assert re.findall(r"\[\d+/\d+\].*", out) == ["[1/2] seed=0", "[2/2] seed=1"]
    after = written(sweep.folder)
    assert len(after) == 2 and before.items() < after.items()


def test_a_changed_config_is_another_run(sweep):
    sweep(*QUICK)
    status, out, _ = sweep(*QUICK, "model.scoring.sigma=2")
    assert status == 0 and "skipped" not in out
    assert len(re.findall(r"multirun/s .* 1 runs", out)) == 1
    assert len(written(sweep.folder)) == 2


def test_a_sweep_over_the_kind_of_threshold_runs_and_names_each(sweep):
    status, _, err = sweep(*QUICK, "threshold.kind=quantile,none")
    assert status == 0, err
    times = written(sweep.folder)
    assert len(times) == 2
    variants = load_runs([sweep.folder])["variant"]
    assert {label.rpartition(" ")[2] for label in variants} == {
        "threshold.kind=quantile",
        "threshold.kind=none",
    }
    assert sweep(*QUICK, "threshold.kind=quantile,none", "report.gallery=0")[0] == 0
    assert written(sweep.folder) == times


def test_a_failure_is_recorded_and_named_and_the_same_command_retries(sweep, mvtec_root, workdir):
    root = make_mvtec(workdir / "own", categories=("cloth", "knot"))
    broken = root / "knot/test/good/001.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    words = [*QUICK, f"data.root={root}", "data.category=cloth,knot"]
    status, _, errors = sweep(*words)
    assert status == 1
    (failed,) = written(sweep.folder, "failure.json")
    assert failed.startswith("knot/") and len(written(sweep.folder)) == 1
    error = json.loads((sweep.folder / failed / "failure.json").read_text())
    assert "001.png" in error["error"] and "Traceback" in error["traceback"]
    summary = errors.splitlines()[-2:]
    assert summary[0] == "anomalib-rd: 1 of 2 runs failed:"
    assert summary[1].startswith(f"  {failed}: UserError: ") and "001.png" in summary[1]
    broken.write_bytes(whole)
    status, out, errors = sweep(*words)
    assert status == 0 and "failed" not in out + errors
    assert not written(sweep.folder, "failure.json") and len(written(sweep.folder)) == 2


def test_a_failure_of_another_command_does_not_count(sweep):
    assert sweep(*QUICK, "seed=1", "data.image_size=[65,64]")[0] == 1
    assert sweep(*QUICK, "seed=0")[0] == 0


def test_a_run_of_another_config_is_refused(sweep, workdir, capfd):
    single = ["train", *QUICK, "hydra.run.dir=here"]
    assert main(single) == 0
    before = written(workdir)
    capfd.readouterr()
    assert main([*single, "seed=3"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "/here " in line and "(seed: " in line
    assert main([*single, "logger=csv", "report.heatmaps=2"]) == 0
    assert written(workdir) == before


def test_jobs_that_would_share_a_folder_are_refused_before_any_runs(sweep):
    status, _, errors = sweep(*QUICK, "seed=0,1", "hydra.sweep.subdir=same")
    assert status == 2 and "two jobs would share this folder" in errors
    assert len(errors.splitlines()) == 1 and not sweep.folder.exists()


def test_a_folder_of_another_config_is_refused_before_any_job_runs(sweep):
    assert sweep(*QUICK, "seed=0", "hydra.sweep.subdir=mine")[0] == 0
    status, _, errors = sweep(*QUICK, "seed=1", "hydra.sweep.subdir=mine")
    assert status == 2 and "multirun/s/mine " in errors and "(seed: " in errors
    assert not written(sweep.folder, "failure.json")


def test_a_run_of_another_process_is_skipped(sweep):
    sweep(*QUICK)
    (first,) = (sweep.folder / run for run in written(sweep.folder))
    (first / "result.json").unlink()
    me = psutil.Process()
    running = {"pid": me.pid, "created": me.create_time(), "host": os.uname().nodename}
    running |= {"started": 0.0, "epoch": 1, "epochs": 2, "first_epoch": 0}
    (first / RUNNING).write_text(json.dumps(running))
    status, _, _ = sweep(*QUICK, "seed=0,1")
    assert status == 0
    assert not (first / "result.json").exists() and (first / RUNNING).exists()
    assert not (first / "failure.json").exists() and len(written(sweep.folder)) == 1


def test_a_jobs_label_distinguishes_it_from_the_others():
    shared = ["data=mvtec", "trainer.max_epochs=1"]
    jobs = {
        f"{category}/{seed}": [*shared, f"seed={seed}", "model=rd4ad", f"data.category={category}"]
        for category in ("bottle", "pill")
        for seed in (0, 1)
    }
    assert labels(jobs) == ["bottle seed=0", "bottle seed=1", "pill seed=0", "pill seed=1"]
    jobs["bottle/x"] = [*shared, "model=fmg_rd", "data.category=bottle", "seed=0", "loss=a"]
    assert labels(jobs)[0] == "bottle rd4ad seed=0"
    assert labels(jobs)[-1] == "bottle fmg_rd seed=0 loss=a"
    assert labels({"bottle/0": shared}) == ["data=mvtec trainer.max_epochs=1"]


def test_without_a_login_it_prints_once_where_the_runs_are(workdir, forked):
    """The jobs of a sweep and its summary are offline; a single run prints it once too."""
    environment = {name: None for name in os.environ if name.startswith("WANDB_")}
    environment |= {"WANDB_MODE": None, "HOME": str(workdir)}
    environment["MVTEC_ROOT"] = os.environ["MVTEC_ROOT"]
    quick = [word for word in QUICK if word != "logger=none"]
    for more, runs in ((["-m", "seed=0,1", "sweep=s"], 3), (["hydra.run.dir=one"], 1)):
        done = forked("train", *quick, *more, cwd=workdir, env=environment)
        assert done.status == 0, done.err
        (line,) = [line for line in (done.out + done.err).splitlines() if "W&B" in line]
        # The printed command uploads them all.
        pattern = re.search(r"`wandb sync (.+?)`", line)[1]
        found = subprocess.run(["bash", "-c", f"ls -d {pattern}"], capture_output=True, text=True)
        assert len(found.stdout.split()) == runs, found


def test_a_search_runs_again(sweep):
    words = [*QUICK, "model=rd4ad", "trainer.max_epochs=1", "optimized_metric=train/loss"]
    assert sweep(*words)[0] == 0
    before = written(sweep.folder)
    assert sweep(*words)[0] == 0
    assert written(sweep.folder).keys() == before.keys() and written(sweep.folder) != before
    assert not (sweep.folder / "sweep.json").exists()


def test_an_unknown_choice_is_a_user_error(sweep):
    status, _, errors = sweep(*SMALL, "data.category=cloth", "model=rd4ad,rd5ad")
    assert status == 2 and "rd5ad" in errors.splitlines()[-1]


def test_resume_command_is_the_same_command_with_its_folder():
    assert resume_command(["-m", "seed=0,1"], "noon", None) == (
        "resume with: anomalib-rd train -m seed=0,1 sweep=noon"
    )
    assert resume_command(["seed=1"], None, "runs/a").endswith("seed=1 hydra.run.dir=runs/a")
    assert resume_command(["-m", "sweep=x"], "x", None).endswith("train -m sweep=x")
    assert resume_command([], None, None) == ""
