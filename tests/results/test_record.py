import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import METRICS, fake_result, fake_run, fake_scores

from anomalib_rd.errors import UserError
from anomalib_rd.results import files
from anomalib_rd.results.files import sha256_file, write_atomically
from anomalib_rd.results.record import (
    find_failures,
    find_runs,
    read_curves,
    read_failure,
    read_record,
    read_scores,
    write_failure,
    write_record,
)


def test_record_is_read_back_unchanged(tmp_path):
    run = fake_run(tmp_path / "run", "carpet", 3)
    record = read_record(run)
    assert record.pop("schema_version") == 1
    assert record == fake_result("carpet", 3)
    pd.testing.assert_frame_equal(read_scores(run), fake_scores("carpet"), check_dtype=False)
    np.testing.assert_array_equal(read_curves(run)["roc"], np.linspace(0, 1, 5))


def test_nan_is_null_on_disk_and_nan_again_when_read(tmp_path):
    metrics = {"pixel_auroc": math.nan, "aupro": np.float32("nan")}
    curve = [{"epoch": 1, "aupro": math.nan}]
    oracle = {"epoch": 1, "image_auroc": 0.5, "aupro": math.nan}
    run = fake_run(tmp_path, metrics=metrics, oracle=oracle, test_curve=curve)
    raw = json.loads((run / "result.json").read_text())
    assert raw["metrics"]["pixel_auroc"] is None
    assert raw["metrics"]["aupro"] is None
    assert "NaN" not in (run / "result.json").read_text()
    record = read_record(run)
    assert math.isnan(record["metrics"]["pixel_auroc"])
    assert math.isnan(record["oracle"]["aupro"])
    assert math.isnan(record["test_curve"][0]["aupro"])
    assert record["metrics"]["image_auroc"] == METRICS["image_auroc"]


def test_numpy_values_and_paths_become_json(tmp_path):
    changes = {"seed": np.int64(4), "checkpoint": {"path": Path("a") / "b", "size": np.float32(2)}}
    result = fake_result() | changes
    write_record(tmp_path, result, fake_scores(), {})
    record = read_record(tmp_path)
    assert record["seed"] == 4
    assert record["checkpoint"] == {"path": "a/b", "size": 2.0}


def test_scores_keep_names_that_look_like_numbers_or_nothing(tmp_path):
    scores = pd.DataFrame(
        {
            "path": ["001/NA/1.png", "001/none/2.png"],
            "category": ["001", "001"],
            "defect": ["NA", "none"],
            "label": [1, 1],
            "score": np.array([1 / 3, np.nan]),
        }
    )
    write_record(tmp_path, fake_result(), scores, {})
    back = read_scores(tmp_path)
    assert back["category"].tolist() == ["001", "001"]
    assert back["defect"].tolist() == ["NA", "none"]
    assert back["score"][0] == 1 / 3
    assert math.isnan(back["score"][1])


def test_credentials_in_the_config_are_not_written(tmp_path):
    config = {"logger.api_key": "abc123", "model.masking.token": "learned"}
    fake_run(tmp_path, config=config)
    text = (tmp_path / "result.json").read_text()
    assert "abc123" not in text
    assert read_record(tmp_path)["config"]["model"]["masking"]["token"] == "learned"


def test_result_is_written_last(tmp_path, monkeypatch):
    order = []

    def spy(path, write):
        order.append(path.name)
        return write_atomically(path, write)

    monkeypatch.setattr(files, "write_atomically", spy)
    monkeypatch.setattr("anomalib_rd.results.record.write_atomically", spy)
    fake_run(tmp_path)
    assert order == ["curves.npz", "scores.csv", "result.json"]


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_incomplete_result_is_refused_before_writing(tmp_path):
    result = fake_result()
    del result["data"]["category"]
    with pytest.raises(KeyError, match=r"data\.category"):
        write_record(tmp_path / "run", result, fake_scores(), {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"schema_version": 1, "metrics"', "cannot be read as JSON"),
        ("[1, 2]", "not a record"),
        ('{"schema_version": 2}', "schema_version is 2"),
        ("{}", "schema_version"),
        ('{"schema_version": 1}', "'data'"),
        ("\x80", "cannot be read as JSON"),
    ],
)
def test_damaged_record_is_one_line_with_the_path(tmp_path, text, match):
    (tmp_path / "result.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=match) as caught:
        read_record(tmp_path)
    assert str(tmp_path / "result.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files_are_named(tmp_path):
    (tmp_path / "scores.csv").write_text("path,label\na,b\n")
    (tmp_path / "curves.npz").write_bytes(b"PK no zip")
    for read, name in [
        (read_record, "result.json"),
        (read_scores, "scores.csv"),
        (read_curves, "curves.npz"),
        (read_failure, "failure.json"),
    ]:
        with pytest.raises(UserError, match=name):
            read(tmp_path)


def test_runs_are_found_once_and_in_order(tmp_path):
    b, a = fake_run(tmp_path / "sweep" / "b"), fake_run(tmp_path / "sweep" / "x" / "a")
    (b / "wandb").mkdir()
    (tmp_path / "sweep" / "started").mkdir()
    (b / "copy").mkdir()
    (b / "copy" / "result.json").write_text("{}")  # inside a run: not a run
    assert find_runs(tmp_path / "sweep") == [b, a]
    assert find_runs(b) == [b]
    assert find_runs(tmp_path, b, tmp_path / "sweep" / ".." / "sweep") == [b, a]


def test_missing_run_or_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="misspelt"):
        find_runs(tmp_path / "misspelt")
    write_failure(tmp_path / "0", RuntimeError("boom"))
    with pytest.raises(UserError, match=r"result\.json.* 1 failed"):
        find_runs(tmp_path)


def test_failure_is_removed_when_the_run_succeeds(tmp_path):
    try:
        raise ValueError("loss is NaN")
    except ValueError as error:
        write_failure(tmp_path, error)
    failure = read_failure(tmp_path)
    assert failure["error"] == "ValueError: loss is NaN"
    assert "test_record.py" in failure["traceback"]
    assert find_failures(tmp_path) == [tmp_path]
    fake_run(tmp_path)
    assert find_failures(tmp_path) == []


def test_sha256_of_a_known_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == expected
