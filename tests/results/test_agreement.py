import math

import numpy as np
import pytest
from fake_runs import fake_run
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anomalib_rd.results.statistics import rank_agreement, spearman, validation_metrics
from anomalib_rd.results.table import load_runs

few = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=6)


@given(few)
def test_the_correlation_is_scipys(pairs):
    x, y = np.array(pairs, dtype=float).T
    ours = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(ours["rho"]) and math.isnan(ours["p"])
    else:
        assert ours["rho"] == pytest.approx(stats.spearmanr(x, y).statistic)


def test_the_p_value_counts_all_orders():
    """Of 24 orders of four values one has rho 1 and one -1."""
    x = np.array([0.1, 0.2, 0.3, 0.4])
    assert spearman(x, x**2) == pytest.approx({"rho": 1.0, "p": 2 / 24, "n": 4})
    # One exchange of neighbours: rho 0.8, reached or passed by 1 + 3 orders.
    assert spearman(x, x[[1, 0, 2, 3]]) == pytest.approx({"rho": 0.8, "p": 8 / 24, "n": 4})
    assert spearman(x, -x)["rho"] == pytest.approx(-1)


def test_many_variants_get_a_p_value_near_that_of_the_t_distribution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    y = 0.5 * x + rng.normal(size=20)
    assert spearman(x, y)["p"] == pytest.approx(stats.spearmanr(x, y).pvalue, abs=0.02)


def test_undefined_pairs_are_left_out_and_fewer_than_three_say_nothing():
    nan = math.nan
    found = spearman(np.array([1, 2, nan, 3]), np.array([1, 3, 9, 2.0]))
    assert (found["rho"], found["n"]) == (pytest.approx(0.5), 3)
    found = spearman(np.array([1, 2, nan]), np.array([1, 2, 3.0]))
    assert math.isnan(found["rho"]) and math.isnan(found["p"]) and found["n"] == 2


def sweep(folder, test, val, categories=("pill",), seeds=(0,)):
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


def test_variants_are_ranked_by_their_means_over_categories_and_seeds(tmp_path):
    runs, validated = sweep(tmp_path, [90, 92, 94, 96], [70, 80, 75, 99], ("pill", "grid"), (0, 1))
    found = rank_agreement(runs, validated)
    means = only(found, category="mean all", metric="image_auroc")
    assert (means["rho"], means["n"], means["n_runs"]) == (pytest.approx(0.8), 4, 4)
    assert only(found, category="grid", metric="image_auroc")["n_runs"] == 2
    assert only(found, category="pill", metric="aupro")["n"] == 0
    assert set(found["metric"]) == {"image_auroc", "aupro"}


def test_a_category_that_some_variant_lacks_moves_no_mean(tmp_path):
    """Pill is easy: whoever had it besides would seem the better variant."""
    sweep(tmp_path, [90, 91, 92], [70, 71, 72], ("grid",))
    easy = {"metrics": {"image_auroc": 1.0}, "validation": {"image_auroc": 1.0}}
    fake_run(tmp_path / "easy", "pill", config={"optimizer.lr": 0.1}, **easy)
    runs = load_runs([tmp_path])
    row = only(
        rank_agreement(runs, validation_metrics(runs)), category="mean all", metric="image_auroc"
    )
    assert (row["rho"], row["n"], row["n_runs"]) == (pytest.approx(1.0), 3, 1)


def test_a_variant_without_validation_is_left_out(tmp_path):
    found = rank_agreement(*sweep(tmp_path, [90, 92, 94, 96], [70, 80, 90, None]))
    row = only(found, category="pill", metric="image_auroc")
    assert (row["rho"], row["n"], row["n_runs"]) == (pytest.approx(1.0), 3, 1)


def test_without_any_validation_there_is_nothing_to_say(tmp_path):
    runs, validated = sweep(tmp_path, [90, 92, 94], [None] * 3)
    assert validated.shape == (3, 0)
    assert rank_agreement(runs, validated).empty
