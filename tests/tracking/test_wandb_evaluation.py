import json

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from wandb_file import read_runs

from anomalib_rd.results.scored_image import ScoredImage
from anomalib_rd.tracking.wandb_logger import finish, log_evaluation

METRICS = {"image_auroc": 0.75, "pixel_auroc": float("nan"), "aupro": np.float64(0.5)}


def scores():
    return pd.DataFrame(
        {
            "path": ["bottle/test/good/000.png", "bottle/test/crack/000.png", "bottle/b.png"],
            "category": "bottle",
            "defect": ["good", "crack", "crack"],
            "label": [0, 1, 1],
            "score": [0.1, 0.9, 0.8],
        }
    )


def example(path, peak, mask=True):
    anomaly_map = np.zeros((24, 32))
    anomaly_map[4:8, 4:8] = peak
    return ScoredImage(
        image=np.full((24, 32, 3), 90, np.uint8),
        mask=anomaly_map > 0 if mask else None,
        anomaly_map=anomaly_map,
        predicted_mask=anomaly_map > 0.5,
        path=path,
        defect="crack",
        score=peak,
    )


@pytest.fixture
def stored(make_logger, save_dir):
    logger = make_logger()
    images = [
        example("bottle/test/crack/000.png", 1.0),
        example("bottle/b.png", 0.5, mask=False),
    ]
    log_evaluation(
        logger, categories={"bottle": METRICS}, metrics=METRICS, scores=scores(), images=images
    )
    finish(logger, failed=False)
    (run,) = read_runs(save_dir)
    return run


def test_summary_has_each_metric_for_the_run_and_for_the_category(stored):
    for prefix in ("test", "bottle"):
        assert stored.summary[f"{prefix}/image_auroc"] == 0.75
        assert stored.summary[f"{prefix}/aupro"] == 0.5
        assert f"{prefix}/pixel_auroc" not in stored.summary


def test_summary_has_tables_and_images(stored):
    assert stored.summary["test/images"]["_type"] == "table-file"
    assert stored.summary["test/examples"]["_type"] == "images/separated"


def test_table_has_a_row_per_test_image(stored):
    (row,) = [row for row in stored.history if "test/images" in row]
    assert row["test/images"]["_type"] == "table-file"
    table = json.loads((stored.files / row["test/images"]["path"]).read_text())
    assert table["columns"][:5] == ["path", "category", "defect", "label", "score"]
    assert [line[:5] for line in table["data"]] == scores().to_numpy().tolist()
    # In the run's own copy a picture is a placeholder; the table's artifact has the file.
    assert [line[5] is None for line in table["data"]] == [True, False, False]
    (artifact,) = stored.artifacts
    names = [entry.path for entry in artifact.manifest.contents]
    assert len([name for name in names if name.endswith(".mask.png")]) >= 2


def test_examples_have_masks(stored):
    (row,) = [row for row in stored.history if "test/examples" in row]
    examples = row["test/examples"]
    assert examples["count"] == 2 and (examples["width"], examples["height"]) == (32, 24)
    assert examples["captions"][0] == "crack 000, score 1.000"
    first, second = examples["all_masks"]
    assert set(first) == {"prediction", "ground_truth"} and set(second) == {"prediction"}
    truth = np.asarray(Image.open(stored.files / first["ground_truth"]["path"]))
    assert truth.shape == (24, 32) and truth.sum() == 16 and truth[5, 5] == 1
    assert np.asarray(Image.open(stored.files / second["prediction"]["path"])).sum() == 0
    picture = np.asarray(Image.open(stored.files / examples["filenames"][0]))
    assert picture.shape == (24, 32, 3) and (picture == 90).all()


def test_anomaly_maps_share_one_colour_scale(stored):
    (row,) = [row for row in stored.history if "test/anomaly_maps" in row]
    high, half = (
        np.asarray(Image.open(stored.files / name))[5, 5].astype(int)
        for name in row["test/anomaly_maps"]["filenames"]
    )
    assert abs(high - [252, 255, 164]).max() <= 1  # the top of inferno
    assert half.sum() < high.sum() and abs(half - [188, 55, 84]).max() <= 3  # its middle


def test_table_without_images(make_logger, save_dir):
    logger = make_logger()
    log_evaluation(
        logger, categories={"bottle": METRICS}, metrics=METRICS, scores=scores(), images=[]
    )
    finish(logger, failed=False)
    (run,) = read_runs(save_dir)
    (row,) = run.history
    assert "test/images" in row and "test/examples" not in row


def test_image_without_score_is_refused(make_logger):
    with pytest.raises(ValueError, match=r"nowhere\.png"):
        log_evaluation(
            make_logger(),
            categories={"bottle": METRICS},
            metrics=METRICS,
            scores=scores(),
            images=[example("nowhere.png", 1.0)],
        )


def test_other_loggers_are_ignored(tmp_path):
    logger = CSVLogger(tmp_path / "csv")
    log_evaluation(
        logger, categories={"bottle": METRICS}, metrics=METRICS, scores=scores(), images=[]
    )
    assert not (tmp_path / "csv").exists()
