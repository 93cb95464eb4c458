"""The command line of the benches."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.speed.bench import ceilings, commands, made_up_sweep, metrics
from experiments.speed.bench.__main__ import main

ROOT = Path(__file__).parents[2]
RUN = ["data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "data.num_workers=0"]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path, mvtec_root):
    """Small ceilings, a separate cache and folder, one thread here and in the contestants."""
    monkeypatch.setitem(ceilings.SIZES, "cpu", (64, 1, 4, 2**12))
    monkeypatch.setattr(ceilings, "SECONDS", 0.0)
    monkeypatch.setenv("ANOMALIB_RD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MVTEC_ROOT", str(mvtec_root))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bench(tmp_path):
    """Run a bench in this process; gives its JSON."""

    def start(*words):
        path = tmp_path / "figures.json"
        assert main([*map(str, words), "--json", str(path)]) == 0
        figures = json.loads(path.read_text())
        assert figures["bench"] == words[0] and figures["machine"]
        assert figures["provenance"]["software"]["torch"]
        return figures

    return start


@pytest.mark.slow
def test_train_measures_a_separate_process(bench, tmp_path, capfd):
    """One contestant: starting a process costs seconds. test_bench_training.py compares them."""
    words = ["--only", "feature-cache", *RUN, "--epochs", "2", "--batch-size", "4"]
    figures = bench("train", *words, "--plot", tmp_path / "bars.png")
    ((label, contestant),) = figures["contestants"].items()
    assert contestant["name"] == "feature-cache" and figures["baseline"] == label
    assert contestant["ratio"] == {"median": 1, "min": 1, "max": 1, "total": 1}
    assert len(contestant["epochs_s"]) == 2 and min(contestant["epochs_s"]) > 0
    assert contestant["images_per_s"] == pytest.approx(12 / sum(contestant["epochs_s"]))
    assert contestant["startup_s"] > 0 and contestant["peak_rss"] > 0
    assert contestant["of_ceiling"] > 0 and 0 <= contestant["metrics"]["aupro"] <= 1
    assert (figures["images"], figures["batch_size"], figures["epochs"]) == (6, 4, 2)
    assert figures["ceilings"]["copy"] > 0
    Image.open(tmp_path / "bars.png").verify()
    assert label in capfd.readouterr().out
    # The contestant's folder is gone, and it left nothing here.
    assert {path.name for path in tmp_path.iterdir()} <= {"figures.json", "bars.png", "cache"}


@pytest.mark.slow
def test_infer_scores_as_the_plain_loop_does(tmp_path):
    """In its own process: the runtimes' libraries stay out of the tests' process."""
    words = ["infer", *RUN, "data.test_batch_size=3", "--images", "4", "--rounds", "2"]
    command = [sys.executable, "-m", "experiments.speed.bench", *words]
    command += ["--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "score" in done.stdout, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    plain, *ours = figures["contestants"].values()
    assert figures["images"] == 4 and [c["batch_size"] for c in ours] == [1] + 7 * [3]
    assert plain["score_difference"] == 0 and plain["ratio"]["median"] == 1
    scale = figures["plain_scores"]["max"]
    whole = [c for c in ours if c["precision"] == "32-true"]
    assert len(whole) == 6 and all(c["map_difference"] < 1e-5 * scale for c in whole)
    assert all(c["score_difference"] < 0.1 * scale for c in ours)  # bf16
    names = ["ONNX Runtime, batch 3", "OpenVINO, batch 3", "OpenVINO, bf16, batch 3"]
    assert [name for name in figures["contestants"] if "batch 3" in name][1:] == names
    for contestant in figures["contestants"].values():
        assert contestant["images_per_s"] > 0 and contestant["latency_ms"] > 0
        assert contestant["peak_rss"] > 0


def test_startup_is_printed_with_its_targets(bench, monkeypatch, capfd):
    kept = {k: v for k, v in commands.COMMANDS.items() if "torch" not in k and "train" not in k}
    monkeypatch.setattr(commands, "COMMANDS", kept)
    figures = bench("startup", "--rounds", "1")
    contestants = figures["contestants"]
    assert contestants["anomalib-rd --help"]["target_s"] == 0.5
    assert contestants["python -c pass"]["target_s"] is None
    assert all(c["min_s"] <= c["median_s"] <= c["max_s"] for c in contestants.values())
    assert "target" in capfd.readouterr().out


def test_report_measures_the_page_of_a_small_sweep(bench, monkeypatch, capfd):
    monkeypatch.setattr(made_up_sweep, "GOOD", 3)
    monkeypatch.setattr(made_up_sweep, "EACH", 1)
    figures = bench("report", "--categories", "2", "--seeds", "1", "--variants", "2")
    assert figures["runs"] == 4
    values = {name: figure["value"] for name, figure in figures["contestants"].items()}
    assert values["tables, s"] > 0 and values["build, s"] > 0 and values["build, CPU s"] > 0
    assert values["peak memory, MiB"] > 50 and values["file, MB"] > 1
    has_browser = find_spec("playwright") and (
        shutil.which("chromium") or shutil.which("chromium-browser")
    )
    assert bool(has_browser) == ("filter, s" in values)
    assert "first paint" in capfd.readouterr().out or not has_browser


@pytest.fixture
def no_processes(monkeypatch):
    """Memory is measured in separate processes, which cost seconds: see test_bench_metrics.py."""
    monkeypatch.setattr(metrics, "peak_in_own_process", lambda *_: 3 * 2**20)


def test_metrics_agree_and_their_memory_is_printed(bench, no_processes, capfd):
    figures = bench("metrics", "--maps", "3", "--size", "32", "--rounds", "1")
    values = [contestant["values"] for contestant in figures["contestants"].values()]
    aupro = [value["aupro"] for value in values if "aupro" in value]
    assert len(aupro) > 1 and aupro == pytest.approx([aupro[0]] * len(aupro), abs=1e-2)
    shown = capfd.readouterr().out
    assert "MiB" in shown and all(name in shown for name in figures["contestants"])


def test_growth_of_the_metrics_is_drawn(bench, no_processes, tmp_path):
    words = ["--maps", "8", "--size", "64", "--rounds", "1"]
    figures = bench("metrics", *words, "--growth", "--plot", tmp_path / "growth.svg")
    growth = figures["growth"]
    assert [row["maps"] for row in growth["by_count"]] == [2, 4, 8, 16, 32]
    assert [row["size"] for row in growth["by_size"]] == [32, 64, 128]
    assert "<svg" in (tmp_path / "growth.svg").read_text()


USER_ERRORS = {
    "no such bench": (["speed"], "speed"),
    "no bench": ([], "BENCH"),
    "no such contestant": (["train", "--only", "plane"], "--only plane"),
    "no epochs": (["train", "--epochs", "0"], "--epochs: 0"),
    "text for a number": (["infer", "--rounds", "many"], "--rounds"),
    "unknown flag": (["startup", "--round", "1", "--fast"], "--fast"),
    "one map": (["metrics", "--maps", "1"], "--maps: 1"),
    "too few maps to grow": (["metrics", "--maps", "4", "--growth"], "--maps must be at least 8"),
    "a plot of nothing": (["metrics", "--plot", "x.png"], "--growth"),
    "folder missing": (["train", "--json", "none/x.json"], "none"),
    "no kind of picture": (["train", "--plot", "x.txt"], ".png"),
    "unknown key": (["train", "model.masking.rato=1"], "model.masking.rato"),
    "wrong type": (["train", "seed=x"], "seed=x"),
    "no such category": (["infer", *RUN, "data.category=clth"], "cloth"),
    "another loss": (["train", *RUN, "loss=pixel_cosine"], "loss=flattened_cosine"),
}


@pytest.mark.parametrize("case", USER_ERRORS)
def test_a_user_error_is_one_line_with_status_2(case, capfd):
    words, expected = USER_ERRORS[case]
    assert main([*words]) == 2
    shown = capfd.readouterr()
    lines = [line for line in shown.err.splitlines() if line.strip()]
    assert len(lines) == 1 and expected in lines[0], shown.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device(capfd):
    assert main(["infer", "--device", "cuda", *RUN]) == 2
    assert "--device cuda" in capfd.readouterr().err


@pytest.mark.parametrize("words", [[], ["train"], ["infer"], ["startup"], ["metrics"]])
def test_help(words, capfd):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0 and "usage: " in capfd.readouterr().out
