import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from anomalib_rd.reports.page.runs import (
    best_threshold,
    defect_types,
    misranked_share,
    thin_curve,
    thin_curves,
    training_loss,
)

# Few distinct values: many ties.
values = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12)


@given(values, values)
def test_no_threshold_has_a_better_f1(normal, defective):
    scores = np.array(normal + defective)
    labels = np.array([0] * len(normal) + [1] * len(defective))
    chosen = best_threshold(scores, labels)
    f1 = {value: f1_score(labels, scores >= value) for value in np.unique(scores)}
    assert f1[chosen] == pytest.approx(max(f1.values()))


def test_no_threshold_without_both_classes():
    assert np.isnan(best_threshold(np.array([0.1, 0.2]), np.array([0, 0])))
    assert np.isnan(best_threshold(np.array([0.1, 0.2]), np.array([1, 1])))


def test_misranked_share_of_images():
    scores = np.array([0.1, 0.5, 0.9, 0.3, 0.5, 0.7])
    labels = np.array([0, 0, 0, 1, 1, 1])
    share = misranked_share(scores, labels)
    assert share.tolist() == pytest.approx([0, 1.5 / 3, 1, 2 / 3, 1.5 / 3, 1 / 3])
    for label in (0, 1):
        assert 1 - share[labels == label].mean() == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(misranked_share(scores, np.ones(6, int))).all()
    assert np.isnan(misranked_share(np.array([0.1, np.nan]), np.array([0, 1]))).all()


def test_defect_types_against_all_good_images_worst_first():
    rows = [("good", 0, 0.1), ("good", 0, 0.5), ("hole", 1, 0.9), ("hole", 1, 0.8)]
    rows += [("stain", 1, 0.3), ("stain", 1, 0.6), ("stain", 1, 0.05)]
    scores = pd.DataFrame(rows, columns=["defect", "label", "score"])
    worst, best = defect_types(scores, threshold=0.6)
    assert (worst["name"], worst["images"], worst["missed"]) == ("stain", 3, 2)
    assert worst["auroc"] == pytest.approx(
        roc_auc_score([0, 0, 1, 1, 1], [0.1, 0.5, 0.3, 0.6, 0.05])
    )
    assert best == {"name": "hole", "images": 2, "auroc": 1.0, "missed": 0}


def test_defect_types_are_undefined_without_good_images_or_with_an_undefined_score():
    rows = pd.DataFrame({"defect": ["hole"], "label": [1], "score": [0.5]})
    (hole,) = defect_types(rows, threshold=np.nan)
    assert np.isnan(hole["auroc"]) and hole["missed"] == 0
    good = pd.DataFrame({"defect": ["good"], "label": [0], "score": [np.nan]})
    (hole,) = defect_types(pd.concat([rows, good]), threshold=np.nan)
    assert np.isnan(hole["auroc"])


def test_long_curves_keep_ends_and_shape():
    x = np.linspace(0, 1, 5000)
    y = x**0.05
    few_x, few_y = thin_curve(x, y, most=100)
    assert len(few_x) <= 100
    assert (few_x[0], few_y[0], few_x[-1], few_y[-1]) == (0, 0, 1, 1)
    assert np.abs(np.interp(x, few_x, few_y) - y).max() < 0.02


def test_short_curves_are_unchanged():
    assert thin_curve(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0])) == [
        [0, 0.5, 1],
        [0, 1, 1],
    ]


def test_empty_and_missing_curves_are_omitted():
    arrays = {"pro_fpr": np.zeros(0), "pro": np.zeros(0), "image_roc_fpr": np.zeros(2)}
    assert thin_curves(arrays) == {}


def test_training_loss_from_record_or_csv(tmp_path):
    assert training_loss({}, tmp_path) == []
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text(
        "epoch,step,train/loss,test/aupro\n0,3,0.5,\n1,7,0.25,\n1,8,,0.9\n"
    )
    assert training_loss({}, tmp_path) == [0.5, 0.25]
    assert training_loss({"loss_curve": [1.0, math.nan]}, tmp_path) == [1.0, None]
