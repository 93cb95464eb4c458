import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from anomalib_rd.reports.page.runs import auroc, best_threshold, defect_types, wrong_pairs

# Few distinct values: many ties.
values = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12)


@given(values, values)
def test_auroc_is_that_of_scikit_learn(normal, defective):
    labels = [0] * len(normal) + [1] * len(defective)
    expected = roc_auc_score(labels, normal + defective)
    assert auroc(np.array(normal), np.array(defective)) == pytest.approx(expected, abs=1e-12)


def test_auroc_without_one_of_the_two_or_with_an_undefined_score_is_undefined():
    some, none = np.array([0.5]), np.array([])
    assert np.isnan([auroc(some, none), auroc(none, some), auroc(some, np.array([np.nan]))]).all()


@given(values, values)
def test_no_threshold_has_a_better_f1(normal, defective):
    scores = np.array(normal + defective)
    labels = np.array([0] * len(normal) + [1] * len(defective))
    chosen = best_threshold(scores, labels)
    f1 = {value: f1_score(labels, scores >= value) for value in np.unique(scores)}
    assert f1[chosen] == pytest.approx(max(f1.values()))


def test_without_both_classes_there_is_no_threshold():
    assert np.isnan(best_threshold(np.array([0.1, 0.2]), np.array([0, 0])))
    assert np.isnan(best_threshold(np.array([0.1, 0.2]), np.array([1, 1])))


def test_images_are_ranked_by_the_pairs_that_they_are_wrongly_ordered_in():
    scores = np.array([0.1, 0.5, 0.9, 0.3, 0.5, 0.7])
    labels = np.array([0, 0, 0, 1, 1, 1])
    wrong = wrong_pairs(scores, labels)
    assert wrong.tolist() == pytest.approx([0, 1.5 / 3, 1, 2 / 3, 1.5 / 3, 1 / 3])
    for label in (0, 1):
        assert 1 - wrong[labels == label].mean() == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(wrong_pairs(scores, np.ones(6, int))).all()
    assert np.isnan(wrong_pairs(np.array([0.1, np.nan]), np.array([0, 1]))).all()


def test_each_type_is_held_against_all_good_images_and_the_worst_comes_first():
    rows = [("good", 0, 0.1), ("good", 0, 0.5), ("hole", 1, 0.9), ("hole", 1, 0.8)]
    rows += [("stain", 1, 0.3), ("stain", 1, 0.6), ("stain", 1, 0.05)]
    scores = pd.DataFrame(rows, columns=["defect", "label", "score"])
    worst, best = defect_types(scores, threshold=0.6)
    assert (worst.name, worst.images, worst.missed) == ("stain", 3, 2)
    assert worst.auroc == pytest.approx(roc_auc_score([0, 0, 1, 1, 1], [0.1, 0.5, 0.3, 0.6, 0.05]))
    assert (best.name, best.images, best.auroc, best.missed) == ("hole", 2, 1.0, 0)
