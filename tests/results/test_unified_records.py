"""Runs of several categories: each category is a row of its own in tables."""

import pytest
from fake_runs import fake_run

from anomalib_rd.errors import UserError
from anomalib_rd.results.record import category_folder, category_set_name, find_runs, parent_run
from anomalib_rd.results.runs_table import load_runs
from anomalib_rd.results.statistics import compare_variants


def unified(folder, categories, seed=0, auroc=0.9):
    said = {"name": "mvtec", "unified": True, "category": list(categories), "root": "data/mvtec"}
    config = {"data": said}
    for category in categories:
        place = category_folder(folder, category)
        fake_run(place, category, seed, metrics={"image_auroc": auroc}, config=config)
    fake_run(folder, "+".join(categories), seed, config=config)
    return folder


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("bottle", "bottle"),
        (1, "1"),
        (["bottle", "pill"], "bottle+pill"),
        ([f"category_{number}" for number in range(15)], "unified-15"),
    ],
)
def test_category_set_name(category, name):
    assert category_set_name(category) == name


def test_category_folders_replace_the_run(tmp_path):
    run = unified(tmp_path / "a/run", ["bottle", "pill"])
    parts = [category_folder(run, name) for name in ("bottle", "pill")]
    assert find_runs(tmp_path) == find_runs(run) == parts
    assert find_runs(parts[1]) == [parts[1]]
    assert {parent_run(part) for part in parts} == {run} and parent_run(run) == run


def test_categories_of_an_interrupted_run_are_ignored(tmp_path):
    (unified(tmp_path / "run", ["bottle", "pill"]) / "result.json").unlink()
    with pytest.raises(UserError, match="no complete run"):
        find_runs(tmp_path)


def test_unified_model_is_compared_with_one_model_per_category(tmp_path):
    for seed in (0, 1):
        unified(tmp_path / f"unified-{seed}", ["bottle", "pill"], seed, auroc=0.9)
        for category, auroc in (("bottle", 0.94), ("pill", 0.92)):
            metrics = {"image_auroc": auroc}
            fake_run(tmp_path / f"{category}-{seed}", category, seed, metrics=metrics)
    runs = load_runs([tmp_path])
    assert len(runs) == 8 and list(runs["unified"]) == [False] * 4 + [True] * 4
    table = compare_variants(runs, "rd4ad resnet18")
    (row,) = table[table["metric"] == "image_auroc"].to_dict("records")
    assert row["variant"] == "rd4ad resnet18 unified=true"
    assert row["difference"] == pytest.approx(-0.03)
    assert (row["n_pairs"], row["n_left_out"], row["n_categories"]) == (4, 0, 2)


def test_category_sets_are_variants(tmp_path):
    unified(tmp_path / "two", ["bottle", "pill"])
    unified(tmp_path / "three", ["bottle", "cable", "pill"])
    labels = set(load_runs([tmp_path])["variant"])
    assert labels == {
        'rd4ad resnet18 category=["bottle","pill"]',
        'rd4ad resnet18 category=["bottle","cable","pill"]',
    }
