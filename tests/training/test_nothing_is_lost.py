"""A failure after the evaluation is a warning and never costs the result."""

import json

import pytest

from anomalib_rd.cli.report import write_report_page
from anomalib_rd.reports import heatmaps
from anomalib_rd.results.gallery import has_gallery
from anomalib_rd.results.record import read_record, read_scores
from anomalib_rd.training import artifacts as gallery
from anomalib_rd.training import artifacts as leave
from anomalib_rd.training import train as run
from anomalib_rd.training.train import train

BASE = ("trainer.max_epochs=1", "report.heatmaps=4", "report.gallery=all", "logger=csv")


def fail(*_, **__):
    raise RuntimeError("cannot be")


def no_strip(*args, **kwargs):
    """Fails for the second picture."""
    no_strip.calls += 1
    return fail() if no_strip.calls == 2 else heatmap_strip(*args, **kwargs)


heatmap_strip = heatmaps.heatmap_strip


@pytest.mark.parametrize(
    ("place", "name", "by", "warning", "left"),
    [
        (heatmaps, "heatmap_strip", no_strip, "no heatmap", (3, True, True)),
        (leave, "write_heatmaps", fail, "no heatmaps", (0, True, True)),
        (gallery, "write_gallery", fail, "no gallery", (4, False, True)),
        (leave, "log_evaluation", fail, "CSVLogger", (4, True, True)),
        (run, "set_threshold", fail, "no threshold", (4, True, False)),
    ],
)
def test_the_result_is_written_if_pictures_or_loggers_fail(
    compose_config, tmp_path, monkeypatch, caplog, place, name, by, warning, left
):
    no_strip.calls = 0
    monkeypatch.setattr(place, name, by)
    with caplog.at_level("WARNING", "anomalib_rd"):
        train(compose_config(*BASE))
    folder = tmp_path / "run"
    record = read_record(folder)
    assert 0 <= record["metrics"]["image_auroc"] <= 1 and len(read_scores(folder)) == 7
    drawn = len(list((folder / "heatmaps").glob("*.png")))
    assert (drawn, has_gallery(folder), record["threshold"] is not None) == left
    told = [r.message for r in caplog.records if "cannot be" in r.message]
    assert len(told) == 1 and warning in told[0] and "\n" not in told[0]


def test_image_with_a_very_long_name(compose_config, mvtec_copy, tmp_path):
    test = mvtec_copy / "cloth/test"
    (test / "good/000.png").rename(test / "good" / ("ä" * 120 + "1.png"))
    (test / "good/001.png").rename(test / "good" / ("ä" * 120 + "2.png"))
    train(compose_config(*BASE, f"data.root={mvtec_copy}", "report.heatmaps=7"))
    assert len(list((tmp_path / "run/heatmaps").glob("*.png"))) == 7
    assert sum(
        "ä1.png" in path or "ä2.png" in path for path in read_scores(tmp_path / "run")["path"]
    )


def test_a_failing_page_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("anomalib_rd.reports.page.build_page", fail)
    write_report_page(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be" in line


def test_a_name_that_is_not_utf8_is_in_the_scores(tmp_path):
    import pandas as pd

    from anomalib_rd.results.record import write_record

    result = {"data": {"name": "d", "category": "c", "group": "object"}, "seed": 0}
    result |= {"model": {"name": "m", "teacher": "t"}, "metrics": {}, "config": {}}
    result |= {"protocol": {"headline": "last epoch", "epochs": 1}}
    scores = pd.DataFrame(
        {"path": ["a\udcff.png"], "category": "c", "defect": "good", "label": 0, "score": 0.5}
    )
    write_record(tmp_path, result, scores, {})
    assert json.loads((tmp_path / "result.json").read_text())["seed"] == 0
    assert len(read_scores(tmp_path)) == 1
