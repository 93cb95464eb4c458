import numpy as np
import pytest
from fake_runs import full_run

from anomalib_rd.reports.page.runs import collect
from anomalib_rd.reports.page.sections import data_sections
from anomalib_rd.results.published import load_published
from anomalib_rd.results.variants import short_labels


@pytest.fixture(scope="module")
def section(sweep):
    sections = data_sections(collect([sweep], None), load_published())
    return next(section for section in sections if section.data == "mvtec")


def test_the_baseline_comes_first(section):
    assert section.baseline == "rd4ad resnet18"
    assert section.labels == ["rd4ad resnet18", "fmg_rd resnet18"]
    assert [variant.is_baseline for variant in section.variants] == [True, False]


def test_means_have_the_spread_over_seeds_and_the_difference_to_the_baseline(section):
    plain, masked = (variant.means[0] for variant in section.variants)
    assert plain.metric == masked.metric == "image_auroc"
    assert (plain.text, plain.spread, plain.difference) == ("85.50", f"±{np.sqrt(0.5):.2f}", "")
    assert (masked.text, masked.difference) == ("90.50", "+5.00")


def test_the_matrix_has_a_cell_for_each_metric_and_variant(section):
    matrix = section.matrix
    assert [row.label for row in matrix.rows] == ["carpet", "bottle"]
    assert all(len(row.cells) == len(matrix.metrics) * 2 for row in (*matrix.rows, *matrix.means))
    assert matrix.means[-1].label == "mean all"
    carpet = {(c.metric, i % 2): c for i, c in enumerate(matrix.rows[0].cells)}
    assert carpet["image_auroc", 0].text == "80.50"
    assert carpet["image_auroc", 0].depth == 1 and carpet["aupro", 0].depth == 1
    assert {c.depth for c in matrix.rows[1].cells if c.metric == "image_auroc"} >= {0}


def test_a_cell_leads_to_a_run_of_its_category_and_variant(sweep, section):
    runs = {run.key: run for run in collect([sweep], None).read}
    for row in section.matrix.rows:
        for place, cell in enumerate(row.cells):
            run = runs[cell.run]
            assert run.group.category == row.label
            assert run.row["variant"] == section.labels[place % 2]


def test_what_no_run_has_is_no_number(tmp_path):
    undefined = {"metrics": {"aupro": np.nan}, "undefined": {"aupro": "no masks"}}
    full_run(tmp_path / "a", "bottle", gallery=False, **undefined)
    full_run(tmp_path / "b", "pill", gallery=False)
    (section,) = data_sections(collect([tmp_path], None), {})
    cells = {row.label: row.cells for row in section.matrix.rows}
    place = section.matrix.metrics.index("aupro")
    bottle = cells["bottle"][place]
    assert (bottle.text, bottle.value, bottle.note) == ("–", None, "no masks")
    assert cells["pill"][place].value == 93


def test_the_published_means_are_over_the_same_categories(section):
    lines = {(line.metric, line.method): line for line in section.beside}
    theirs = lines["image_auroc", "RD4AD WRN50*"]
    assert theirs.reported == "99.45"  # carpet 98.9, bottle 100
    assert theirs.differences == ["-13.95", "-8.95"]


def test_other_data_is_not_held_against_published_numbers(sweep):
    sections = data_sections(collect([sweep], None), load_published())
    assert [section.beside == [] for section in sections if section.data != "mvtec"] == [True]


def test_the_config_keys_that_make_the_variants_are_named(section):
    keys = dict(section.configs)
    assert keys["model.name"] == ["rd4ad", "fmg_rd"]
    assert keys["model.masking.strategy"] == ["none", "random"]
    assert not {"seed", "data.category", "model.masking.ratio"} & set(keys)


def test_short_labels_leave_out_what_all_have():
    labels = ["rd4ad r18", "fmg_rd r18 ratio=0.3", "fmg_rd r18 ratio=0.6"]
    assert list(short_labels(labels).values()) == ["rd4ad", "fmg_rd ratio=0.3", "fmg_rd ratio=0.6"]
    assert short_labels(["rd4ad r18"]) == {"rd4ad r18": "rd4ad r18"}
