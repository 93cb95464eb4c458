import numpy as np
import pytest
from scipy import stats

from anomalib_rd.results.statistics import (
    needed_seeds,
    seed_statistics,
    smallest_difference,
    spread_factors,
    standard_error,
)


def test_paired_seeds_are_a_t_test():
    differences = np.array([0.01, 0.03, 0.02, 0.05])
    found = seed_statistics(differences.mean(), [differences])
    assert found["n_seeds"] == 4
    assert found["std"] == pytest.approx(differences.std(ddof=1))
    assert found["p_seeds"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_seeds_not_shared_are_welchs_t_test():
    ours, theirs = np.array([0.91, 0.95, 0.97]), np.array([0.90, 0.905, 0.91, 0.92, 0.89])
    found = seed_statistics(ours.mean() - theirs.mean(), [ours, theirs])
    welch = stats.ttest_ind(ours, theirs, equal_var=False)
    assert found["p_seeds"] == pytest.approx(welch.pvalue)
    assert found["n_seeds"] == 3
    variances = np.array([ours.var(ddof=1), theirs.var(ddof=1)])
    _, freedom = standard_error(variances, np.array([3, 5]))
    assert freedom == pytest.approx(welch.df)


@pytest.mark.parametrize(
    # Differences in standard deviations, and seeds, of Cohen's tables as G*Power and
    # statsmodels' TTestPower / TTestIndPower give them (two-sided, alpha 0.05, power 0.8).
    ("effect", "samples", "seeds"),
    [(0.5, 1, 34), (0.8, 1, 15), (1.0, 1, 10), (0.5, 2, 64), (0.8, 2, 26), (1.0, 2, 17)],
)
def test_the_seeds_needed_are_those_of_the_tables(effect, samples, seeds):
    variances = np.ones(samples)
    assert needed_seeds(effect, variances) == seeds
    assert needed_seeds(-effect, variances) == seeds
    enough, fewer = np.full(samples, seeds), np.full(samples, seeds - 1)
    assert smallest_difference(variances, enough) <= effect
    assert smallest_difference(variances, fewer) > effect


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_smallest_difference_is_found_four_times_in_five(seeds):
    smallest = smallest_difference(np.array([1.0]), np.array([seeds]))
    draws = np.random.default_rng(seeds).normal(smallest, 1, (20_000, seeds))
    share = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert share == pytest.approx(0.8, abs=0.01)


def test_noise_alone_is_told_apart_one_time_in_twenty():
    draws = np.random.default_rng(5).normal(0, 1, (200, 3))
    p = np.array([seed_statistics(row.mean(), [row])["p_seeds"] for row in draws])
    assert 0.01 <= (p < 0.05).mean() <= 0.1


def test_one_seed_knows_no_spread():
    found = seed_statistics(0.1, [np.array([0.1])])
    assert found.pop("n_seeds") == 1
    assert np.isnan(list(found.values())).all()


def test_seeds_that_all_agree_have_no_p_value():
    # 0.3 - 0.1 and 0.2 differ by rounding only.
    found = seed_statistics(0.2, [np.array([0.3 - 0.1, 0.2, 0.2])])
    assert (found["std"], found["smallest"]) == (0, 0)
    assert np.isnan(found["p_seeds"])


def test_no_difference_needs_more_seeds_than_anyone_has():
    assert needed_seeds(0.0, np.array([1.0])) == np.inf


def test_what_the_true_spread_may_be():
    # chi2 of 2 degrees of freedom: -2 ln(0.025) = 7.378 and -2 ln(0.975) = 0.0506.
    least, most = spread_factors(3)
    assert least == pytest.approx(np.sqrt(2 / 7.3778), rel=1e-4)
    assert most == pytest.approx(np.sqrt(2 / 0.050636), rel=1e-4)
