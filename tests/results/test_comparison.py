import math

import numpy as np
import pytest
from fake_runs import METRICS, OBJECTS, TEXTURES, fake_run
from scipy import stats

from anomalib_rd.errors import UserError
from anomalib_rd.results.statistics import choose_baselines, compare_variants
from anomalib_rd.results.table import load_runs


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


def test_the_difference_is_the_mean_over_categories_of_their_pairs(tmp_path):
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


def test_noise_is_judged_by_the_means_of_complete_seeds(tmp_path):
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


def test_one_seed_still_tells_of_categories_but_not_of_noise(tmp_path):
    row = compared(tmp_path, two({c: [0.01 * i] for i, c in enumerate(TEXTURES, start=1)}))
    assert row["p"] == pytest.approx(2 / 32)
    assert row["n_seeds"] == 1
    assert math.isnan(row["smallest"])


def test_one_pair_has_no_interval(tmp_path):
    row = compared(tmp_path, two({"bottle": [0.01]}))
    assert row["difference"] == pytest.approx(0.01)
    assert all(math.isnan(row[key]) for key in ("low", "high", "p", "p_holm"))


def test_only_what_both_have_is_paired(tmp_path):
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


def test_a_metric_that_one_lacks_is_not_compared(tmp_path):
    values = {("rd4ad", "bottle", 0): math.nan, ("fmg_rd", "bottle", 0): 0.9}
    table = compare_variants(sweep(tmp_path, values, "aupro"))
    assert set(table["metric"]) == set(METRICS) - {"aupro"}


def test_seeds_not_shared_are_compared_by_their_means(tmp_path):
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


def test_nothing_in_common_is_undefined(tmp_path):
    row = compared(tmp_path, {("rd4ad", "bottle", 0): 0.9, ("fmg_rd", "cable", 0): 0.8})
    assert (row["n_pairs"], row["n_categories"], row["n_seeds"]) == (0, 0, 0)
    assert all(math.isnan(row[key]) for key in ("difference", "low", "p", "needed_seeds"))


def test_p_is_corrected_over_the_variants_of_a_metric(tmp_path):
    values = two({c: [0.01 + 0.001 * i] for i, c in enumerate(OBJECTS)})
    for i, c in enumerate(OBJECTS):
        values["untrained", c, 0] = 0.5 + 0.001 * i
    table = compare_variants(sweep(tmp_path, values))
    chosen = table[table["metric"] == "image_auroc"]
    assert chosen["p"].tolist() == pytest.approx([2 / 1024] * 2)
    assert chosen["p_holm"].tolist() == pytest.approx([4 / 1024] * 2)


def test_variants_without_effect_are_rarely_told_apart(tmp_path):
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


def test_the_baseline_is_rd4ad_else_the_first_variant_or_the_one_named(tmp_path):
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
def test_a_baseline_that_is_none_or_several_is_one_line(tmp_path, name):
    runs = sweep(tmp_path, two({"bottle": [0.01]}))
    with pytest.raises(UserError, match="fmg_rd; rd4ad") as caught:
        compare_variants(runs, name)
    assert "\n" not in str(caught.value)


def test_one_variant_has_nothing_to_be_compared_with(tmp_path):
    fake_run(tmp_path)
    assert compare_variants(load_runs([tmp_path])).empty
    assert compare_variants(load_runs([tmp_path]), "anything").empty
