import math

import pytest
from fake_runs import fake_run

from anomalib_rd.reports.comparison_table import comparison_table, verdict
from anomalib_rd.reports.tables import HEADLINE
from anomalib_rd.results.statistics import compare_variants
from anomalib_rd.results.table import load_runs

ROW = {
    "metric": "image_auroc",
    "difference": 0.0021,
    "paired": True,
    "n_pairs": 45,
    "n_categories": 15,
    "n_seeds": 3,
    "p_seeds": 0.4,
    "p_seeds_holm": 0.4,
    "smallest": 0.0058,
    "needed_seeds": 19.0,
}


def said(comparisons=1, **changes):
    return verdict(ROW | changes, comparisons)


def test_noise_is_said_with_what_would_be_needed():
    assert said() == (
        "+0.21 image AUROC: not told apart from noise; 3 seeds show differences from 0.58 on, "
        "this one would need 19 seeds"
    )
    assert "would need more than 1000 seeds" in said(needed_seeds=math.inf)


def test_more_than_noise_is_said_with_its_p_value():
    assert said(difference=-0.0091, p_seeds=0.01, p_seeds_holm=0.012) == (
        "-0.91 image AUROC: more than noise (p 0.012 over 3 seeds, which show differences "
        "from 0.58 on)"
    )


def test_what_only_many_comparisons_made_significant_is_noise():
    assert said(5, p_seeds=0.02, p_seeds_holm=0.1).startswith(
        "+0.21 image AUROC: not told apart from noise among 5 comparisons (alone p 0.020); "
    )


def test_one_seed_is_told_to_run_more():
    unknown = {"p_seeds": math.nan, "p_seeds_holm": math.nan, "smallest": math.nan}
    line = said(n_seeds=1, n_pairs=15, **unknown)
    assert line == "+0.21 image AUROC: one seed: the spread is unknown; run seed=0,1,2"
    assert "run what is missing" in said(n_seeds=1, n_pairs=20, **unknown)
    same = unknown | {"smallest": 0.0}
    assert "the same with each of the 3 seeds" in said(**same)
    assert "no category in common" in said(difference=math.nan)


def make_table(folder, differences):
    """fmg_rd against rd4ad: category -> one difference a seed."""
    for category, row in differences.items():
        for seed, difference in enumerate(row):
            for model, added in (("rd4ad", 0), ("fmg_rd", difference)):
                metrics = {"image_auroc": 0.9 + added}
                run = folder / f"{model}-{category}-{seed}"
                fake_run(run, category, seed, metrics=metrics, config={"model.name": model})
    compared = compare_variants(load_runs([folder]))
    return comparison_table(compared[compared["metric"].isin(HEADLINE)])


def test_the_table_says_difference_interval_p_and_seeds(tmp_path):
    table = make_table(tmp_path, {"bottle": [0.01, 0.03, 0.02], "cable": [0.0, 0.0, 0.03]})
    assert table.title == "Differences to rd4ad on mvtec"
    assert "percentage points" in table.statement
    row = table.rows()[0]
    assert row.label == "fmg_rd"
    metric, difference, interval, p, pairs, smallest, needed = row.cells
    assert (metric, difference, interval) == ("image AUROC", "+1.50", "+1.00 to +2.00¹")
    assert (p, pairs, smallest, needed) == ("0.500", "6", "3.26", "6")
    text = " ".join(table.remarks)
    assert "fmg_rd: +1.50 image AUROC: not told apart from noise; 3 seeds" in text
    assert table.footnotes()[0] == (
        "¹ 2 categories are few: the interval is too narrow, and p cannot be below 0.5"
    )
    assert "estimated from 3 seeds: the true one may be 0.52 to 6.3 times" in text
    assert "Holm" not in text  # one comparison


def test_metrics_that_are_the_same_have_no_seeds_to_ask_for(tmp_path):
    table = make_table(tmp_path, {"bottle": [0.01, 0.03], "cable": [0.0, 0.01]})
    pixel = next(row for row in table.rows() if row.cells[0] == "pixel AUROC")
    assert pixel.cells[1] == "+0.00"
    assert pixel.cells[-1] == "–"


def test_what_is_missing_has_a_footnote(tmp_path):
    fake_run(tmp_path / "more", "cable", 7, config={"model.name": "rd4ad"})
    table = make_table(tmp_path, {"bottle": [0.01]})
    cells = table.rows()[0].cells
    assert cells[2:4] == ("–¹", "–")
    assert cells[4] == "1²"
    assert table.footnotes()[:2] == [
        "¹ fewer than 2 pairs: no interval",
        "² left out, for only one of the two has them: 1",
    ]


@pytest.mark.parametrize("metric", HEADLINE)
def test_every_headline_metric_has_a_row_and_a_verdict(tmp_path, metric):
    table = make_table(tmp_path, {"bottle": [0.01]})
    name = verdict(ROW | {"metric": metric}, 1).split(" ", 1)[1].partition(":")[0]
    assert name in [row.cells[0] for row in table.rows()]
    assert any(f" {name}: one seed" in remark for remark in table.remarks)
