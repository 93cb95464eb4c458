"""Intervals, p-values, seeds, comparisons of variants, and rank agreement."""

import math
from itertools import product

import numpy as np
import pytest
from fake_runs import METRICS, OBJECTS, TEXTURES, fake_run
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anomalib_rd.errors import UserError
from anomalib_rd.results.runs_table import load_runs
from anomalib_rd.results.statistics import (
    choose_baselines,
    compare_variants,
    holm,
    mean_interval,
    needed_seeds,
    rank_agreement,
    seed_statistics,
    sign_flip_p,
    smallest_difference,
    spearman,
    spread_factors,
    standard_error,
    validation_metrics,
)


def test_sign_flip_p_by_hand():
    # Of the 8 sums of +-1 +-2 +-3 two are as far as 6.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    # |+-1 +-2 +-3| >= |1 + 2 - 3|: all.
    assert sign_flip_p(np.array([1.0, 2.0, -3.0])) == 1


def test_p_is_exact_up_to_thirteen_values():
    values = np.random.default_rng(3).normal(0.3, 1, 13)
    sums = np.array(list(product((1, -1), repeat=13))) @ values
    share = np.mean(np.abs(sums) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p(values) == pytest.approx(share)


def test_p_of_many_values_is_near_the_exact_one():
    values = np.random.default_rng(4).normal(0.5, 1, 15)
    sums = np.array(list(product((1, -1), repeat=15))) @ values
    share = np.mean(np.abs(sums) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p(values) == pytest.approx(share, abs=0.01)
    assert sign_flip_p(values) == sign_flip_p(values)


def test_interval_contains_the_mean():
    values = np.array([0.1, 0.4, 0.2, 0.9, 0.3])
    low, high = mean_interval(values)
    assert values.min() <= low < values.mean() < high <= values.max()
    assert mean_interval(values) == (low, high)


def test_interval_of_equal_values():
    assert mean_interval(np.full(4, 0.25)) == (0.25, 0.25)
    assert sign_flip_p(np.zeros(4)) == 1


def test_fewer_than_two_values_are_undefined():
    for values in (np.array([]), np.array([0.3])):
        assert np.isnan(mean_interval(values)).all()
        assert np.isnan(sign_flip_p(values))


def test_coverage_and_level_on_simulated_data():
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


def test_holm_by_hand():
    # Sorted 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.5 * 1.
    adjusted = holm(np.array([0.5, 0.01, 0.03, 0.02]))
    assert adjusted == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1.0, 1.0])


def test_holm_ignores_nan():
    adjusted = holm(np.array([np.nan, 0.02, 0.03]))
    assert np.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.04])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_paired_seeds_are_a_t_test():
    differences = np.array([0.01, 0.03, 0.02, 0.05])
    found = seed_statistics(differences.mean(), [differences])
    assert found["n_seeds"] == 4
    assert found["std"] == pytest.approx(differences.std(ddof=1))
    assert found["p_seeds"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_different_seeds_are_welchs_t_test():
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
def test_needed_seeds_equal_published_tables(effect, samples, seeds):
    variances = np.ones(samples)
    assert needed_seeds(effect, variances) == seeds
    assert needed_seeds(-effect, variances) == seeds
    enough, fewer = np.full(samples, seeds), np.full(samples, seeds - 1)
    assert smallest_difference(variances, enough) <= effect
    assert smallest_difference(variances, fewer) > effect


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_smallest_difference_has_power_0_8(seeds):
    smallest = smallest_difference(np.array([1.0]), np.array([seeds]))
    draws = np.random.default_rng(seeds).normal(smallest, 1, (20_000, seeds))
    share = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert share == pytest.approx(0.8, abs=0.01)


def test_false_positive_rate_of_seed_statistics():
    draws = np.random.default_rng(5).normal(0, 1, (200, 3))
    p = np.array([seed_statistics(row.mean(), [row])["p_seeds"] for row in draws])
    assert 0.01 <= (p < 0.05).mean() <= 0.1


def test_one_seed_has_no_spread():
    found = seed_statistics(0.1, [np.array([0.1])])
    assert found.pop("n_seeds") == 1
    assert np.isnan(list(found.values())).all()


def test_equal_seeds_have_no_p_value():
    # 0.3 - 0.1 and 0.2 differ by rounding only.
    found = seed_statistics(0.2, [np.array([0.3 - 0.1, 0.2, 0.2])])
    assert (found["std"], found["smallest"]) == (0, 0)
    assert np.isnan(found["p_seeds"])


def test_zero_difference_needs_infinite_seeds():
    assert needed_seeds(0.0, np.array([1.0])) == np.inf


def test_spread_factors():
    # chi2 of 2 degrees of freedom: -2 ln(0.025) = 7.378 and -2 ln(0.975) = 0.0506.
    least, most = spread_factors(3)
    assert least == pytest.approx(np.sqrt(2 / 7.3778), rel=1e-4)
    assert most == pytest.approx(np.sqrt(2 / 0.050636), rel=1e-4)


def sweep(folder, values, metric="image_auroc"):
    """``values``: (model, category, seed) -> value."""
    for (model, category, seed), value in values.items():
        run = folder / f"{model}-{category}-{seed}"
        fake_run(run, category, seed, metrics={metric: value}, config={"model.name": model})
    return load_runs([folder])


def compared(folder, values, metric="image_auroc", **keywords):
    table = compare_variants(sweep(folder, values, metric), **keywords)
    (row,) = table[table["metric"] == metric].to_dict("records")
    return row


def two(differences, base=0.9):
    """rd4ad at ``base`` and fmg_rd at so much more: category -> one difference a seed."""
    values = {}
    for category, row in differences.items():
        for seed, difference in enumerate(row):
            values["rd4ad", category, seed] = base
            values["fmg_rd", category, seed] = base + difference
    return values


def test_difference_is_the_mean_over_categories(tmp_path):
    row = compared(tmp_path, two({"bottle": [0.01, 0.03], "cable": [-0.02, 0.0], "pill": [0.04]}))
    # (0.02 - 0.01 + 0.04) / 3, the category with one seed weighing no less.
    assert row["difference"] == pytest.approx(0.05 / 3)
    assert (row["baseline"], row["variant"]) == ("rd4ad resnet18", "fmg_rd resnet18")
    assert (row["n_pairs"], row["n_categories"], row["n_left_out"]) == (5, 3, 0)
    assert (row["resampled"], row["n_resampled"]) == ("categories", 3)
    # Of the 8 sums of +-2 +-1 +-4 four are as far as 5: +-7 and +-5.
    assert row["p"] == pytest.approx(4 / 8)
    assert row["low"] < row["difference"] < row["high"]
    assert row["unit"] == "fraction"


def test_seed_statistics_use_complete_seeds(tmp_path):
    differences = {"bottle": [0.01, 0.03, 0.02], "cable": [0.00, 0.01, 0.05]}
    row = compared(tmp_path, two(differences))
    by_seed = np.array([0.005, 0.02, 0.035])
    assert row["n_seeds"] == 3
    assert row["std"] == pytest.approx(0.015)
    assert row["p_seeds"] == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)
    assert row["difference"] == pytest.approx(0.02)
    # t with 2 degrees of freedom: 5.6534 standard errors for power 0.8.
    assert row["smallest"] == pytest.approx(5.6534 * 0.015 / math.sqrt(3), rel=1e-3)


def test_one_category_resamples_its_seeds(tmp_path):
    row = compared(tmp_path, two({"bottle": [0.01, 0.02, 0.03]}))
    assert (row["resampled"], row["n_resampled"]) == ("seeds", 3)
    assert row["p"] == pytest.approx(2 / 8)
    assert 0.0099 < row["low"] < 0.02 < row["high"] < 0.0301


def test_one_seed_has_no_seed_statistics(tmp_path):
    row = compared(tmp_path, two({c: [0.01 * i] for i, c in enumerate(TEXTURES, start=1)}))
    assert row["p"] == pytest.approx(2 / 32)
    assert row["n_seeds"] == 1
    assert math.isnan(row["smallest"])


def test_one_pair_has_no_interval(tmp_path):
    row = compared(tmp_path, two({"bottle": [0.01]}))
    assert row["difference"] == pytest.approx(0.01)
    assert all(math.isnan(row[key]) for key in ("low", "high", "p", "p_holm"))


def test_pairs_are_runs_of_both(tmp_path):
    values = two({"bottle": [0.01, 0.03], "cable": [0.02, 0.02]})
    del values["fmg_rd", "cable", 1]
    values["rd4ad", "pill", 0] = 0.1
    row = compared(tmp_path, values)
    assert (row["n_pairs"], row["n_left_out"], row["n_categories"]) == (3, 2, 2)
    assert row["difference"] == pytest.approx(0.02)
    assert row["n_seeds"] == 1


def test_undefined_values_are_no_pairs(tmp_path):
    values = two({"bottle": [0.01, 0.03], "cable": [0.5, 0.5]})
    values |= {("fmg_rd", "cable", seed): math.nan for seed in (0, 1)}
    row = compared(tmp_path, values, metric="pixel_auroc")
    assert (row["n_pairs"], row["n_categories"], row["n_seeds"]) == (2, 1, 2)
    assert row["difference"] == pytest.approx(0.02)


def test_missing_metric_is_not_compared(tmp_path):
    values = {("rd4ad", "bottle", 0): math.nan, ("fmg_rd", "bottle", 0): 0.9}
    table = compare_variants(sweep(tmp_path, values, "aupro"))
    assert set(table["metric"]) == set(METRICS) - {"aupro"}


def test_different_seeds_are_compared_by_their_means(tmp_path):
    values = {}
    for category in ("bottle", "cable"):
        values |= {("rd4ad", category, seed): 0.90 + 0.01 * seed for seed in (0, 1)}
        values |= {("fmg_rd", category, seed): 0.90 + 0.01 * seed for seed in (5, 6, 7)}
    row = compared(tmp_path, values)
    assert not row["paired"]
    assert (row["n_pairs"], row["n_categories"], row["n_seeds"]) == (0, 2, 2)
    assert row["difference"] == pytest.approx(0.96 - 0.905)
    welch = stats.ttest_ind([0.95, 0.96, 0.97], [0.90, 0.91], equal_var=False)
    assert row["p_seeds"] == pytest.approx(welch.pvalue)


def test_no_common_category_is_undefined(tmp_path):
    row = compared(tmp_path, {("rd4ad", "bottle", 0): 0.9, ("fmg_rd", "cable", 0): 0.8})
    assert (row["n_pairs"], row["n_categories"], row["n_seeds"]) == (0, 0, 0)
    assert all(math.isnan(row[key]) for key in ("difference", "low", "p", "needed_seeds"))


def test_p_is_corrected_over_variants(tmp_path):
    values = two({c: [0.01 + 0.001 * i] for i, c in enumerate(OBJECTS)})
    for i, c in enumerate(OBJECTS):
        values["untrained", c, 0] = 0.5 + 0.001 * i
    table = compare_variants(sweep(tmp_path, values))
    chosen = table[table["metric"] == "image_auroc"]
    assert chosen["p"].tolist() == pytest.approx([2 / 1024] * 2)
    assert chosen["p_holm"].tolist() == pytest.approx([4 / 1024] * 2)


def test_false_positives_of_simulated_variants(tmp_path):
    """Categories of unlike difficulty and the noise of seeds: neither is an effect."""
    rng = np.random.default_rng(8)
    level = dict(zip(OBJECTS, rng.uniform(0.8, 0.99, len(OBJECTS)), strict=True))
    for category in OBJECTS:
        for seed in range(3):
            for model in ("rd4ad", "fmg_rd"):
                noise = rng.normal(0, 0.01, 60)
                metrics = {f"m{i}": level[category] + value for i, value in enumerate(noise)}
                run = tmp_path / f"{model}-{category}-{seed}"
                fake_run(run, category, seed, metrics=metrics, config={"model.name": model})
    table = compare_variants(load_runs([tmp_path]))
    simulated = table[table["metric"].str.fullmatch(r"m\d+")]
    assert len(simulated) == 60
    for column in ("p", "p_seeds"):
        assert (simulated[column] < 0.05).mean() <= 0.15
        assert simulated[column].between(0.2, 0.8).any()
    covered = (simulated["low"] <= 0) & (simulated["high"] >= 0)
    assert 0.8 <= covered.mean() <= 1


def test_choice_of_the_baseline(tmp_path):
    runs = sweep(tmp_path / "a", two({"bottle": [0.01]}))
    assert choose_baselines(runs) == {"mvtec": "rd4ad resnet18"}
    assert choose_baselines(runs, "fmg_rd") == {"mvtec": "fmg_rd resnet18"}
    for ratio in (0.5, 0.1):
        config = {"model.name": "fmg_rd", "model.masking.ratio": ratio}
        fake_run(tmp_path / "b" / str(ratio), config=config)
    runs = load_runs([tmp_path / "b"])
    assert choose_baselines(runs) == {"mvtec": "fmg_rd resnet18 ratio=0.1"}
    assert choose_baselines(runs, "ratio=0.5") == {"mvtec": "fmg_rd resnet18 ratio=0.5"}


@pytest.mark.parametrize("name", ["nobody", "", "resnet18"])
def test_missing_or_ambiguous_baseline(tmp_path, name):
    runs = sweep(tmp_path, two({"bottle": [0.01]}))
    with pytest.raises(UserError, match="fmg_rd; rd4ad") as caught:
        compare_variants(runs, name)
    assert "\n" not in str(caught.value)


def test_one_variant_gives_an_empty_comparison(tmp_path):
    fake_run(tmp_path)
    assert compare_variants(load_runs([tmp_path])).empty
    assert compare_variants(load_runs([tmp_path]), "anything").empty


few = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=6)


@given(few)
def test_correlation_equals_scipy(pairs):
    x, y = np.array(pairs, dtype=float).T
    ours = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(ours["rho"]) and math.isnan(ours["p"])
    else:
        assert ours["rho"] == pytest.approx(stats.spearmanr(x, y).statistic)


def test_exact_p_value_of_the_correlation():
    """Of 24 orders of four values one has rho 1 and one -1."""
    x = np.array([0.1, 0.2, 0.3, 0.4])
    assert spearman(x, x**2) == pytest.approx({"rho": 1.0, "p": 2 / 24, "n": 4})
    # One exchange of neighbours: rho 0.8, reached or passed by 1 + 3 orders.
    assert spearman(x, x[[1, 0, 2, 3]]) == pytest.approx({"rho": 0.8, "p": 8 / 24, "n": 4})
    assert spearman(x, -x)["rho"] == pytest.approx(-1)


def test_p_value_of_many_variants():
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    y = 0.5 * x + rng.normal(size=20)
    assert spearman(x, y)["p"] == pytest.approx(stats.spearmanr(x, y).pvalue, abs=0.02)


def test_undefined_pairs_are_omitted():
    nan = math.nan
    found = spearman(np.array([1, 2, nan, 3]), np.array([1, 3, 9, 2.0]))
    assert (found["rho"], found["n"]) == (pytest.approx(0.5), 3)
    found = spearman(np.array([1, 2, nan]), np.array([1, 2, 3.0]))
    assert math.isnan(found["rho"]) and math.isnan(found["p"]) and found["n"] == 2


def validated_sweep(folder, test, val, categories=("pill",), seeds=(0,)):
    """One variant for each number: test and validation image AUROC in percent."""
    for variant, (a, b) in enumerate(zip(test, val, strict=True)):
        for category in categories:
            for seed in seeds:
                fake_run(
                    folder / f"{variant}-{category}-{seed}",
                    category,
                    seed,
                    metrics={"image_auroc": a / 100 + seed / 1000},
                    config={"optimizer.lr": 0.1 + variant},
                    validation=None if b is None else {"image_auroc": b / 100, "aupro": None},
                )
    runs = load_runs([folder])
    return runs, validation_metrics(runs)


def only(table, **wanted):
    for key, value in wanted.items():
        table = table[table[key] == value]
    (row,) = table.to_dict("records")
    return row


def test_agreement_of_means_over_categories_and_seeds(tmp_path):
    runs, validated = validated_sweep(
        tmp_path, [90, 92, 94, 96], [70, 80, 75, 99], ("pill", "grid"), (0, 1)
    )
    found = rank_agreement(runs, validated)
    means = only(found, category="mean all", metric="image_auroc")
    assert (means["rho"], means["n"], means["n_runs"]) == (pytest.approx(0.8), 4, 4)
    assert only(found, category="grid", metric="image_auroc")["n_runs"] == 2
    assert only(found, category="pill", metric="aupro")["n"] == 0
    assert set(found["metric"]) == {"image_auroc", "aupro"}


def test_incomplete_category_is_omitted(tmp_path):
    """Pill is easy: whoever had it besides would seem the better variant."""
    validated_sweep(tmp_path, [90, 91, 92], [70, 71, 72], ("grid",))
    easy = {"metrics": {"image_auroc": 1.0}, "validation": {"image_auroc": 1.0}}
    fake_run(tmp_path / "easy", "pill", config={"optimizer.lr": 0.1}, **easy)
    runs = load_runs([tmp_path])
    row = only(
        rank_agreement(runs, validation_metrics(runs)), category="mean all", metric="image_auroc"
    )
    assert (row["rho"], row["n"], row["n_runs"]) == (pytest.approx(1.0), 3, 1)


def test_variant_without_validation_is_omitted(tmp_path):
    found = rank_agreement(*validated_sweep(tmp_path, [90, 92, 94, 96], [70, 80, 90, None]))
    row = only(found, category="pill", metric="image_auroc")
    assert (row["rho"], row["n"], row["n_runs"]) == (pytest.approx(1.0), 3, 1)


def test_agreement_without_validation_is_empty(tmp_path):
    runs, validated = validated_sweep(tmp_path, [90, 92, 94], [None] * 3)
    assert validated.shape == (3, 0)
    assert rank_agreement(runs, validated).empty
