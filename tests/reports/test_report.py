import io

import numpy as np
import pandas as pd
import pytest
from fake_runs import METRICS, fake_run
from PIL import Image
from rich.console import Console

from anomalib_rd.cli import run_command
from anomalib_rd.errors import UserError
from anomalib_rd.reports.heatmaps import write_heatmaps
from anomalib_rd.reports.report import report, show
from anomalib_rd.results.record import write_failure
from anomalib_rd.results.scored_image import ScoredImage


def run_report(*arguments, **keywords):
    console = Console(file=io.StringIO(), width=100)
    return report(*arguments, console=console, **keywords), console.file.getvalue()


def sweep(folder):
    for category in ("bottle", "carpet"):
        for seed in (0, 1):
            run = fake_run(folder / f"{category}-{seed}", category, seed)
            grey = np.full((64, 64, 3), 90, np.uint8)
            path = f"{category}/test/crack/000.png"
            write_heatmaps(
                run,
                [
                    ScoredImage(
                        path=path, defect="crack", score=0.5, image=grey, anomaly_map=np.eye(64)
                    )
                ],
            )
    write_failure(folder / "pill-0", RuntimeError("boom"))
    return folder


def test_it_prints_writes_and_says_where(tmp_path):
    folder = sweep(tmp_path / "sweep")
    result, text = run_report([folder])
    names = ["summary.csv", "means.csv", "table.md", "table.tex", "heatmaps.png"]
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
    assert len(result.files) == 4


def test_several_variants_are_compared_with_the_baseline_asked_for(tmp_path):
    for model in ("fmg_rd", "rd4ad"):
        fake_run(tmp_path / model, config={"model.name": model})
    result, text = run_report([tmp_path])
    assert "Differences to rd4ad on mvtec" in text
    assert tmp_path / "comparisons.csv" in result.files
    table = pd.read_csv(tmp_path / "comparisons.csv")
    assert table["variant"].unique().tolist() == ["fmg_rd resnet18"]
    assert set(table["metric"]) == set(METRICS)
    for name in ("table.md", "table.tex"):
        assert "seed=0,1,2" in (tmp_path / name).read_text()
    _, text = run_report([tmp_path], baseline="fmg_rd")
    assert "Differences to fmg_rd on mvtec" in text
    with pytest.raises(UserError, match="baseline 'other'"):
        run_report([tmp_path], baseline="other")


def test_a_comparison_that_no_longer_holds_is_not_left_behind(tmp_path):
    for model in ("fmg_rd", "rd4ad"):
        fake_run(tmp_path / model, config={"model.name": model})
    run_report([tmp_path])
    (tmp_path / "fmg_rd" / "result.json").unlink()
    run_report([tmp_path])
    assert not (tmp_path / "comparisons.csv").exists()


def test_the_command_takes_a_baseline(tmp_path, capsys):
    for model in ("fmg_rd", "rd4ad"):
        fake_run(tmp_path / model, config={"model.name": model})
    assert run_command(["report", str(tmp_path), "--baseline", "fmg_rd"]) == 0
    assert "Differences to fmg_rd on" in capsys.readouterr().out


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run_report([tmp_path / "missing"])
    fake_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file") as caught:
        run_report([tmp_path], out=tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_standard_output_that_is_no_terminal_gets_a_hundred_columns(tmp_path, capsys):
    for category in ("bottle", "pill"):
        fake_run(tmp_path / category, category)
    report([tmp_path])
    assert "RD++ WRN50*" in capsys.readouterr().out


def test_others_numbers_are_printed_beside_a_single_run_only_if_asked_for(tmp_path, capsys):
    fake_run(tmp_path / "run")
    show(tmp_path / "run")
    assert run_command(["report", str(tmp_path)]) == 0
    assert "RD4AD" not in capsys.readouterr().out
    assert "RD4AD WRN50" in (tmp_path / "table.md").read_text()
    assert run_command(["report", str(tmp_path), "--published"]) == 0
    assert "100/98.7/96.6" in capsys.readouterr().out


class PrintedError(Exception):
    """Something was printed."""


class NoOutput(io.StringIO):
    """Standard output that takes nothing."""

    def write(self, text):
        raise PrintedError


def test_files_are_written_before_anything_is_printed(tmp_path, monkeypatch):
    folder = sweep(tmp_path / "sweep")
    monkeypatch.setattr("sys.stdout", NoOutput())
    with pytest.raises(PrintedError):
        run_command(["report", str(folder), "--html", "--figures"])
    names = ["summary.csv", "means.csv", "table.md", "table.tex", "heatmaps.png", "report.html"]
    assert [name for name in names if not (folder / name).is_file()] == []
    assert list((folder / "figures").glob("*.pdf"))


def test_what_cannot_be_written_is_printed_all_the_same(tmp_path, capsys):
    fake_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        run_command(["report", str(tmp_path), "--out", str(tmp_path / "file")])
    assert "98.00" in capsys.readouterr().out
