import io

import numpy as np
import pandas as pd
import pytest
from fake_runs import METRICS, fake_run
from PIL import Image
from rich.console import Console

from anomalib_rd.errors import UserError
from anomalib_rd.reports.heatmaps import Example, write_heatmaps
from anomalib_rd.reports.report import report
from anomalib_rd.results.record import write_failure


def run_report(*arguments, **keywords):
    console = Console(file=io.StringIO(), width=100)
    return report(*arguments, console=console, **keywords), console.file.getvalue()


def sweep(folder):
    for category in ("bottle", "carpet"):
        for seed in (0, 1):
            run = fake_run(folder / f"{category}-{seed}", category, seed)
            grey = np.full((64, 64, 3), 90, np.uint8)
            path = f"{category}/test/crack/000.png"
            write_heatmaps(run, [Example(path, "crack", 0.5, grey, None, np.eye(64))])
    write_failure(folder / "pill-0", RuntimeError("boom"))
    return folder


def test_it_prints_writes_and_says_where(tmp_path):
    folder = sweep(tmp_path / "sweep")
    result, text = run_report([folder])
    names = ["summary.csv", "means.csv", "table.md", "heatmaps.png"]
    assert result.files == [folder / name for name in names]
    assert result.failures == [folder / "pill-0"]
    assert len(result.runs) == 4
    (where,) = [line for line in text.splitlines() if line.startswith("Written to")]
    assert where == f"Written to {folder}: {', '.join(names)}"
    assert "mean all" in text
    assert "boom" in text
    summary = pd.read_csv(folder / "summary.csv")
    assert len(summary) == 4 * len(METRICS)
    assert summary["variant"].unique().tolist() == ["rd4ad resnet18"]
    means = pd.read_csv(folder / "means.csv")
    assert {"mean textures", "mean objects", "mean all"} <= set(means["category"])
    assert "| bottle |" in (folder / "table.md").read_text()
    with Image.open(folder / "heatmaps.png") as sheet:
        rows_of_one_seed = 2
        assert sheet.height < 150 * (rows_of_one_seed + 1)


def test_it_can_be_repeated_and_written_elsewhere(tmp_path):
    folder = sweep(tmp_path / "sweep")
    run_report([folder])
    first = (folder / "summary.csv").read_bytes()
    run_report([folder])
    assert (folder / "summary.csv").read_bytes() == first
    result, _ = run_report([folder], out=tmp_path / "new" / "place")
    assert result.files[0] == tmp_path / "new" / "place" / "summary.csv"
    assert result.files[0].read_bytes() == first


def test_without_heatmaps_there_is_no_picture(tmp_path):
    fake_run(tmp_path / "run")
    result, text = run_report([tmp_path])
    assert "heatmaps.png" not in text
    assert not (tmp_path / "heatmaps.png").exists()
    assert len(result.files) == 3


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run_report([tmp_path / "missing"])
    fake_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written") as caught:
        run_report([tmp_path], out=tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_standard_output_that_is_no_terminal_gets_a_hundred_columns(tmp_path, capsys):
    fake_run(tmp_path / "run")
    report([tmp_path])
    assert "RD++ WRN50*" in capsys.readouterr().out
