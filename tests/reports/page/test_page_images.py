import base64
import re

import numpy as np
import pytest
from fake_runs import full_run

from anomalib_rd.reports.page import images as images_module
from anomalib_rd.reports.page.images import (
    choose_images,
    encode_images,
    images_per_category,
    trace_outline,
)
from anomalib_rd.reports.page.runs import read_runs
from anomalib_rd.results.gallery import Gallery
from anomalib_rd.results.runs_table import load_runs


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    """Three runs of one category, the last without a gallery."""
    top = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        full_run(top / f"s{seed}", "bottle", seed, quality=1.0, gallery=seed < 2)
    _, (found,) = read_runs(load_runs([top]))
    return found


def test_choice_includes_the_worst_image_of_each_run(image_set):
    chosen = choose_images(image_set, image_set.images, 6)
    assert len(chosen) == 6
    for run in image_set.runs:
        assert max(image_set.images, key=run.misranked.get) in chosen


def test_choice_covers_all_defect_types(image_set):
    chosen = choose_images(image_set, image_set.images, 14)
    assert {image_set.images[path][0] for path in chosen} == {"good", "broken", "scratch", "stain"}


def test_choice_of_available_images_only(image_set):
    some = list(image_set.images)[::3]
    assert choose_images(image_set, some, 20) == some


def test_photos_once_and_maps_of_each_run(image_set):
    found = encode_images(image_set, 5)
    shown = set(found["photos"])
    assert len(shown) == 5 and set(found["contours"]) == shown
    assert set(found["maps"]) == {run.key for run in image_set.runs[:2]}
    assert all(set(maps) == shown for maps in found["maps"].values())
    position = next(iter(shown))
    path = list(image_set.images)[int(position)]
    with Gallery(image_set.runs[1].folder) as gallery:
        maps = found["maps"][image_set.runs[1].key]
        assert base64.b64decode(maps[position]) == gallery.map(path)
        assert base64.b64decode(found["photos"][position]) == gallery.image(path)
        assert (found["contours"][position] != "") == gallery.mask(path).any()


def test_the_outline_closes_around_the_mask_in_a_square_of_1000_units():
    mask = np.zeros((50, 100), dtype=bool)
    mask[10:20, 40:60] = True
    line = trace_outline(mask)
    numbers = np.array(re.findall(r"(\d+) (\d+)", line), dtype=int)
    assert line.startswith("M") and line.endswith("Z")
    assert np.abs(numbers.min(axis=0) - (400, 200)).max() <= 5
    assert np.abs(numbers.max(axis=0) - (600, 400)).max() <= 5


def test_a_mask_that_touches_the_edge_is_outlined_along_it():
    numbers = re.findall(r"(\d+) (\d+)", trace_outline(np.ones((8, 8), dtype=bool)))
    assert {int(value) for pair in numbers for value in pair} >= {0, 1000}


def test_no_ground_truth_is_not_the_same_as_no_defect():
    assert trace_outline(None) is None
    assert trace_outline(np.zeros((8, 8), dtype=bool)) == ""


def test_very_many_runs_show_fewer_images_per_category(image_set, monkeypatch):
    assert images_per_category([image_set], 20) == 20
    monkeypatch.setattr(images_module, "MOST_MAPS", 10)
    assert images_per_category([image_set], 20) == 5
    monkeypatch.setattr(images_module, "MOST_MAPS", 1)
    assert images_per_category([image_set], 20) == 2


def test_no_images_without_a_gallery(tmp_path):
    full_run(tmp_path / "a", gallery=False)
    _, (found,) = read_runs(load_runs([tmp_path]))
    assert encode_images(found, 20) == {}


def test_other_images_of_the_same_name_are_another_set(tmp_path):
    first = full_run(tmp_path / "a", gallery=False)
    second = full_run(tmp_path / "b", gallery=False)
    record = (second / "result.json").read_text()
    (second / "result.json").write_text(record.replace("sha-bottle", "sha-other"))
    runs, image_sets = read_runs(load_runs([first, second]))
    assert len(image_sets) == 2 and [run.image_set for run in runs] == image_sets
