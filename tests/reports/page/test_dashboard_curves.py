import math

import numpy as np

from anomalib_rd.reports.page.runs import drawn_curves, thinned, training_loss


def test_a_long_curve_keeps_its_ends_and_its_shape():
    x = np.linspace(0, 1, 5000)
    y = x**0.05
    few_x, few_y = thinned(x, y, most=100)
    assert len(few_x) <= 100
    assert (few_x[0], few_y[0], few_x[-1], few_y[-1]) == (0, 0, 1, 1)
    assert np.abs(np.interp(x, few_x, few_y) - y).max() < 0.02


def test_a_short_curve_is_kept_as_it_is():
    assert thinned(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0])) == [[0, 0.5, 1], [0, 1, 1]]


def test_curves_that_are_empty_or_missing_are_left_out():
    arrays = {"pro_fpr": np.zeros(0), "pro": np.zeros(0), "image_roc_fpr": np.zeros(2)}
    assert drawn_curves(arrays) == {}


def test_the_loss_is_the_records_or_else_the_csv_loggers(tmp_path):
    assert training_loss({}, tmp_path) == []
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text(
        "epoch,step,train/loss,test/aupro\n0,3,0.5,\n1,7,0.25,\n1,8,,0.9\n"
    )
    assert training_loss({}, tmp_path) == [0.5, 0.25]
    assert training_loss({"loss_curve": [1.0, math.nan]}, tmp_path) == [1.0, None]
