import math

import pytest
from fake_runs import fake_run

from anomalib_rd.reports.comparison_table import comparison_table, verdict
from anomalib_rd.reports.result_tables import HEADLINE
from anomalib_rd.results.runs_table import load_runs
from anomalib_rd.results.statistics import compare_variants

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


def verdict_of(comparisons=1, **changes):
    return verdict(ROW | changes, comparisons)


def test_insignificant_difference_with_the_seeds_it_needs():
    line = verdict_of()
    assert line.startswith("+0.21 image AUROC: not significant;")
    assert "3 seeds" in line and "0.58" in line and "19 seeds" in line
    assert "1000 seeds" in verdict_of(needed_seeds=math.inf)


def test_significant_difference_with_its_p_value():
    line = verdict_of(difference=-0.0091, p_seeds=0.01, p_seeds_holm=0.012)
    assert line.startswith("-0.91 image AUROC: significant") and "p 0.012" in line


def test_significant_alone_but_not_in_many_comparisons():
    line = verdict_of(5, p_seeds=0.02, p_seeds_holm=0.1)
    assert "not significant in 5 comparisons" in line and "0.020" in line


def test_unknown_verdicts_tell_what_to_run():
    unknown = {"p_seeds": math.nan, "p_seeds_holm": math.nan, "smallest": math.nan}
    one_seed = verdict_of(n_seeds=1, n_pairs=15, **unknown)
    assert one_seed.startswith("+0.21 image AUROC: unknown") and "seed=0,1,2" in one_seed
    incomplete = verdict_of(n_seeds=1, n_pairs=20, **unknown)
    assert "unknown" in incomplete and "seed=0,1,2" not in incomplete
    assert "all 3 seeds" in verdict_of(**unknown | {"smallest": 0.0})
    assert verdict_of(difference=math.nan).startswith("image AUROC: ")


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


def test_difference_interval_p_and_seeds(tmp_path):
    table = make_table(tmp_path, {"bottle": [0.01, 0.03, 0.02], "cable": [0.0, 0.0, 0.03]})
    assert table.title == "Differences to rd4ad on mvtec"
    row = table.rows()[0]
    assert row.label == "fmg_rd"
    metric, difference, interval, p, pairs, smallest, needed = row.cells
    assert (metric, difference, interval) == ("image AUROC", "+1.50", "+1.00 to +2.00¹")
    assert (p, pairs, smallest, needed) == ("0.500", "6", "3.26", "6")
    text = " ".join(table.remarks)
    assert "fmg_rd: +1.50 image AUROC: not significant; 3 seeds" in text
    note = table.footnotes()[0]
    assert note.startswith("¹ only 2 categories") and note.endswith("0.5")
    assert "0.52 to 6.3 times" in text
    assert "Holm" not in text  # one comparison


def test_equal_metrics_need_no_seeds(tmp_path):
    table = make_table(tmp_path, {"bottle": [0.01, 0.03], "cable": [0.0, 0.01]})
    pixel = next(row for row in table.rows() if row.cells[0] == "pixel AUROC")
    assert pixel.cells[1] == "+0.00"
    assert pixel.cells[-1] == "–"


def test_missing_values_have_footnotes(tmp_path):
    fake_run(tmp_path / "more", "cable", 7, config={"model.name": "rd4ad"})
    table = make_table(tmp_path, {"bottle": [0.01]})
    cells = table.rows()[0].cells
    assert cells[2:4] == ("–¹", "–")
    assert cells[4] == "1²"
    no_interval, not_compared = table.footnotes()[:2]
    assert no_interval.startswith("¹ fewer than 2 pairs")
    assert not_compared.startswith("² ") and not_compared.endswith(": 1")


@pytest.mark.parametrize("metric", HEADLINE)
def test_every_headline_metric_has_a_row_and_a_verdict(tmp_path, metric):
    table = make_table(tmp_path, {"bottle": [0.01]})
    name = verdict(ROW | {"metric": metric}, 1).split(" ", 1)[1].partition(":")[0]
    assert name in [row.cells[0] for row in table.rows()]
    assert any(f" {name}: unknown" in remark for remark in table.remarks)
