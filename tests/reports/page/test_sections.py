import numpy as np
import pytest
from fake_runs import full_run

from anomalib_rd.reports.page.runs import load_page_data
from anomalib_rd.reports.page.sections import make_sections
from anomalib_rd.results.published import load_published
from anomalib_rd.results.variants import short_labels


@pytest.fixture(scope="module")
def sections(sweep):
    made = make_sections(load_page_data([sweep], None), load_published())
    return {section.data: section for section in made}


@pytest.fixture(scope="module")
def section(sections):
    return sections["mvtec"]


def test_the_baseline_comes_first(section):
    assert section.baseline == "rd4ad resnet18"
    assert [variant.label for variant in section.variants] == ["rd4ad resnet18", "fmg_rd resnet18"]
    assert [variant.is_baseline for variant in section.variants] == [True, False]


def test_means_with_std_over_seeds_and_difference_to_the_baseline(section):
    plain, masked = (variant.means[0] for variant in section.variants)
    assert plain.metric == masked.metric == "image_auroc"
    assert (plain.text, plain.std, plain.difference) == ("85.50", f"±{np.sqrt(0.5):.2f}", "")
    assert (masked.text, masked.difference) == ("90.50", "+5.00")


def test_each_category_has_a_cell_for_each_metric_and_variant(section):
    assert [row.label for row in section.rows] == ["carpet", "bottle"]
    cells = [row.cells for row in (*section.rows, *section.means)]
    assert {len(row) for row in cells} == {2 * len(section.metrics)}
    assert section.means[-1].label == "mean all"
    carpet = {(c.metric, i % 2): c for i, c in enumerate(section.rows[0].cells)}
    assert carpet["image_auroc", 0].text == "80.50"
    assert carpet["image_auroc", 0].depth == 1 and carpet["aupro", 0].depth == 1
    assert {c.depth for c in section.rows[1].cells if c.metric == "image_auroc"} >= {0}


def test_a_cell_links_to_a_run_of_its_category_and_variant(sweep, section):
    runs = {run.key: run for run in load_page_data([sweep], None).runs}
    for row in section.rows:
        for place, cell in enumerate(row.cells):
            run = runs[cell.run]
            assert run.image_set.category == row.label
            assert run.row["variant"] == section.variants[place % 2].label


def test_undefined_metrics_are_no_numbers(tmp_path):
    undefined = {"metrics": {"aupro": np.nan}, "undefined": {"aupro": "no masks"}}
    full_run(tmp_path / "a", "bottle", gallery=False, **undefined)
    full_run(tmp_path / "b", "pill", gallery=False)
    (section,) = make_sections(load_page_data([tmp_path], None), {})
    cells = {row.label: row.cells for row in section.rows}
    place = section.metrics.index("aupro")
    bottle = cells["bottle"][place]
    assert (bottle.text, bottle.value, bottle.note) == ("–", None, "no masks")
    assert cells["pill"][place].value == 93


def test_published_means_cover_the_same_categories(section):
    lines = {(line.metric, line.method): line for line in section.published}
    theirs = lines["image_auroc", "RD4AD WRN50*"]
    assert theirs.value == "99.45"  # carpet 98.9, bottle 100
    assert theirs.differences == ["-13.95", "-8.95"]


def test_other_data_has_no_published_results(sections):
    assert [s.published for name, s in sections.items() if name != "mvtec"] == [[]]


def test_config_keys_that_differ_between_variants(section):
    keys = dict(section.configs)
    assert keys["model.name"] == ["rd4ad", "fmg_rd"]
    assert keys["model.masking.strategy"] == ["none", "random"]
    assert not {"seed", "data.category", "model.masking.ratio"} & set(keys)


def test_short_labels_omit_common_words():
    labels = ["rd4ad r18", "fmg_rd r18 ratio=0.3", "fmg_rd r18 ratio=0.6"]
    assert list(short_labels(labels).values()) == ["rd4ad", "fmg_rd ratio=0.3", "fmg_rd ratio=0.6"]
    assert short_labels(["rd4ad r18"]) == {"rd4ad r18": "rd4ad r18"}
