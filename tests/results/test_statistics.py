from itertools import product

import numpy as np
import pytest

from anomalib_rd.results.statistics import holm, mean_interval, sign_flip_p


def test_p_is_the_share_of_sign_flips_at_least_as_far_from_zero():
    # Of the 8 sums of +-1 +-2 +-3 two are as far as 6.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    # |+-1 +-2 +-3| >= |1 + 2 - 3|: all.
    assert sign_flip_p(np.array([1.0, 2.0, -3.0])) == 1


def test_p_is_exact_up_to_thirteen_values():
    values = np.random.default_rng(3).normal(0.3, 1, 13)
    sums = np.array(list(product((1, -1), repeat=13))) @ values
    share = np.mean(np.abs(sums) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p(values) == pytest.approx(share)


def test_p_of_many_values_is_near_the_exact_one_and_repeats():
    values = np.random.default_rng(4).normal(0.5, 1, 15)
    sums = np.array(list(product((1, -1), repeat=15))) @ values
    share = np.mean(np.abs(sums) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p(values) == pytest.approx(share, abs=0.01)
    assert sign_flip_p(values) == sign_flip_p(values)


def test_the_interval_holds_the_mean_and_repeats():
    values = np.array([0.1, 0.4, 0.2, 0.9, 0.3])
    low, high = mean_interval(values)
    assert values.min() <= low < values.mean() < high <= values.max()
    assert mean_interval(values) == (low, high)


def test_equal_values_have_an_interval_without_width():
    assert mean_interval(np.full(4, 0.25)) == (0.25, 0.25)
    assert sign_flip_p(np.zeros(4)) == 1


def test_fewer_than_two_values_say_nothing():
    for values in (np.array([]), np.array([0.3])):
        assert np.isnan(mean_interval(values)).all()
        assert np.isnan(sign_flip_p(values))


def test_on_simulated_data_the_interval_covers_and_the_p_value_holds_its_level():
    rng = np.random.default_rng(12)
    trials, covered, false, found = 200, 0, 0, 0
    for _ in range(trials):
        values = rng.normal(0, 1, 10)
        low, high = mean_interval(values + 2)
        covered += low <= 2 <= high
        false += sign_flip_p(values) < 0.05
        found += sign_flip_p(values + 1) < 0.05
    # Three standard errors of a share of 5 % in 200 trials are 0.05; the interval's true
    # coverage for 10 values is near 0.9.
    assert 0.85 <= covered / trials <= 0.97
    assert false / trials <= 0.1
    assert found / trials >= 0.8


def test_holm_against_numbers_computed_by_hand():
    # Sorted 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.5 * 1.
    adjusted = holm(np.array([0.5, 0.01, 0.03, 0.02]))
    assert adjusted == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1.0, 1.0])


def test_holm_leaves_out_what_was_not_compared():
    adjusted = holm(np.array([np.nan, 0.02, 0.03]))
    assert np.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.04])
    assert np.isnan(holm(np.array([np.nan]))).all()
