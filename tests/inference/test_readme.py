"""The examples of the README run unchanged."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_data import draw

from anomalib_rd.cli import main

pytestmark = pytest.mark.own_process  # loads ONNX Runtime and OpenVINO

README = Path(__file__).parents[2] / "README.md"
SMALL = ["data.image_size=[64,64]", "trainer.max_epochs=1", "data.num_workers=0", "logger=none"]


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    return [text for label, text in fenced if label == language]


def commands(*starts):
    """The README's command lines with these starts, as arguments, without comments."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    found = [line for line in lines if line.startswith(starts)]
    return [shlex.split(line, comments=True)[1:] for line in found]


@pytest.fixture
def folder(run_copy, data_root, tmp_path, monkeypatch):
    """A working folder with the files that the README names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").symlink_to(run_copy)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/parts").symlink_to(data_root)
    images = sorted((data_root / "cloth/test").rglob("*.png"))
    for number, name in enumerate(("part.png", "photos/line/a.png", "more/b.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(images[number]).resize((90, 60)).save(tmp_path / name)
    return tmp_path


def test_python_of_the_readme_runs(folder, capsys):
    block, _ = blocks("python")
    names = {}
    exec(block, names)
    score, verdict, normalised = capsys.readouterr().out.split()
    assert float(score) == names["prediction"].score and 0 <= float(normalised) <= 1
    assert verdict in ("normal", "anomalous")
    assert names["heatmap"].shape == (60, 90) and names["prediction"].anomaly_map.shape == (64, 64)
    assert len(block.strip().splitlines()) <= 6  # five lines and the import


def test_evaluate_and_predict_of_the_readme_run(folder):
    said = commands("anomalib-rd evaluate RUN", "anomalib-rd predict RUN")
    assert [words[0] for words in said] == ["evaluate", "evaluate", "predict"]
    for number, words in enumerate(said):
        extra = ["--name", str(number)] if words[0] == "evaluate" else ["--out", "out"]
        assert main([*words, *extra, "--device", "cpu"]) == 0
    assert list(pd.read_csv("out/predictions.csv")["path"]) == ["photos/line/a.png", "more/b.png"]


def test_walk_through_with_own_images_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, count in (("normal", 8), ("defect/crack", 3)):
        for number in range(count):
            image, mask = draw(rng, 72, defect=folder != "normal")
            files = {f"parts/{folder}/{number}.png": image}
            if folder != "normal":
                files[f"parts/masks/crack/{number}_mask.png"] = mask
            for name, values in files.items():
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(name)
    (check,) = commands("anomalib-rd data check data=folder")
    (train,) = commands("anomalib-rd train data=folder")
    assert main(check) == 0
    main([*train, *SMALL, "trainer=cpu"])
    (run,) = tmp_path.glob("runs/*-all-s0/*")
    assert {"crack_0.png", "crack_2.png"} < {path.name for path in run.glob("heatmaps/*.png")}
    assert len(pd.read_csv(run / "scores.csv")) > 3
