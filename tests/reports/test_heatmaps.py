import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_run
from PIL import Image

from anomalib_rd.errors import UserError
from anomalib_rd.reports.heatmaps import (
    BAND,
    CAPTION,
    CONTOUR,
    GAP,
    HEAD,
    LABEL,
    MARGIN,
    PANEL,
    choose_examples,
    heatmap_sheet,
    heatmap_strip,
    with_small_parts,
    write_heatmaps,
)
from anomalib_rd.results.scored_image import ScoredImage

SIDE = 256
GREY = np.full((SIDE, SIDE, 3), 120, np.uint8)


def square():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[100:150, 60:120] = True
    return mask


def example(path="bottle/test/crack/000.png", defect="crack", mask=None, score=0.5):
    return ScoredImage(
        path=path,
        defect=defect,
        score=score,
        image=GREY,
        mask=mask,
        anomaly_map=square().astype(float),
    )


def scores(**counts):
    rows = [(f"c/test/{d}/{i:03d}.png", d) for d, count in counts.items() for i in range(count)]
    return pd.DataFrame(rows, columns=["path", "defect"])


def chosen_types(table, n):
    return table["defect"].iloc[choose_examples(table, n)].value_counts().to_dict()


def test_choice_is_even_over_defects_and_good():
    table = scores(good=20, crack=10, scratch=2, hole=10)
    assert chosen_types(table, 8) == {"good": 2, "crack": 2, "hole": 2, "scratch": 2}
    assert chosen_types(table, 11) == {"good": 3, "crack": 3, "hole": 3, "scratch": 2}
    assert chosen_types(table, 2) == {"crack": 1, "good": 1}
    assert len(choose_examples(table, 1000)) == len(table)
    assert choose_examples(table, 0) == []
    assert choose_examples(table.iloc[:0], 3) == []


def test_choice_does_not_depend_on_the_order_of_rows():
    table = scores(good=7, crack=9)
    shuffled = table.sample(frac=1, random_state=0)
    first = set(table["path"].iloc[choose_examples(table, 5)])
    assert set(shuffled["path"].iloc[choose_examples(shuffled, 5)]) == first


def test_strip_has_three_panels_of_the_images_size():
    strip = heatmap_strip(GREY, square(), square().astype(float), 0, 1, "crack 000")
    assert strip.size == (3 * SIDE + 2 * GAP, SIDE + CAPTION)
    pixels = np.asarray(strip)[CAPTION:]
    image, truth, heat = (pixels[:, i * (SIDE + GAP) :][:, :SIDE] for i in range(3))
    assert (image == GREY).all()
    # The outline lies just outside the mask and leaves inside and outside as they were.
    outline = (truth == CONTOUR).all(axis=2)
    assert outline[99, 90]
    assert outline[125, 59]
    assert not outline[square()].any()
    assert (truth[square()] == 120).all()
    assert (truth[:50] == 120).all()
    # High values are bright and warm, low ones dark.
    assert heat[125, 90].sum() > 2 * heat[10, 10].sum()
    assert heat[125, 90][0] > heat[125, 90][2]
    assert (np.asarray(strip)[:CAPTION] < 100).any()  # the caption is written


def test_scale_is_the_given_one():
    half = np.full((SIDE, SIDE), 0.5)
    dark = np.asarray(heatmap_strip(GREY, None, half, 0.5, 1, ""))[-10, -10]
    bright = np.asarray(heatmap_strip(GREY, None, half, 0, 0.5, ""))[-10, -10]
    assert dark.sum() < bright.sum()
    flat = heatmap_strip(GREY, None, half, 0.5, 0.5, "")  # a map without range is drawn dark
    assert (np.asarray(flat)[-10, -10] == dark).all()
    holes = np.full((SIDE, SIDE), np.nan)
    assert (np.asarray(heatmap_strip(GREY, None, holes, 0.5, 1, ""))[-10, -10] == dark).all()


def test_small_images_are_enlarged_and_wrong_shapes_refused():
    small = heatmap_strip(GREY[:64, :32], square()[:64, :32], np.zeros((64, 32)), 0, 1, "x")
    # Three times as large; a column is wide enough for a caption.
    assert small.size == (3 * 192 + 2 * GAP, 192 + CAPTION)
    assert (np.asarray(small)[CAPTION:, 96:192] == 255).all()
    wide = heatmap_strip(GREY[:64], square()[:64], np.zeros((64, SIDE)), 0, 1, "x")
    assert wide.size == (3 * SIDE + 2 * GAP, 64 + CAPTION)
    with pytest.raises(ValueError, match="256"):
        heatmap_strip(GREY, square()[:5], np.zeros((SIDE, SIDE)), 0, 1, "x")


def test_heatmaps_are_named_captioned_and_share_a_scale(tmp_path):
    low = ScoredImage(
        path="b/test/good/007.png",
        defect="good",
        score=0.1,
        image=GREY,
        anomaly_map=np.zeros((SIDE, SIDE)),
    )
    twice = example("b/test/crack/sub/000.png")
    paths = write_heatmaps(tmp_path, [example(mask=square()), low, twice])
    names = [path.name for path in paths]
    assert names == ["crack_000.png", "good_007.png", "crack_000_2.png"]
    with Image.open(paths[0]) as first, Image.open(paths[1]) as second:
        assert first.text["caption"] == "crack 000  score 0.5"
        assert first.text["defect"] == "crack"
        assert second.text["caption"] == "good 007  score 0.1"  # no truth needed
        assert np.asarray(first)[-10, -10].tolist() == np.asarray(second)[-10, -10].tolist()
    with Image.open(paths[2]) as third:
        assert third.text["caption"].endswith("no ground truth")
    assert {path.name for path in (tmp_path / "heatmaps").iterdir()} == set(names)


def runs_with_heatmaps(folder, categories, count=3):
    for category in categories:
        run = fake_run(folder / category, category)
        defects = ["crack", "good", "hole"][:count]
        examples = [example(f"{category}/test/{d}/001.png", d, square()) for d in defects]
        write_heatmaps(run, examples)
    return [folder / category for category in categories]


def test_sheet_has_a_row_for_each_run_and_its_pixels(tmp_path):
    runs = runs_with_heatmaps(tmp_path, ["carpet", "bottle"])
    path = heatmap_sheet(runs, tmp_path / "sheet.png", "title")
    with Image.open(path) as sheet:
        strip = 3 * PANEL + 2 * GAP
        assert sheet.width == 2 * MARGIN + LABEL + 3 * (strip + MARGIN)
        assert sheet.height == 2 * HEAD + 2 * (BAND + PANEL + GAP) + MARGIN
        pixels = np.asarray(sheet)
    for row in range(2):
        top = 2 * HEAD + row * (BAND + PANEL + GAP) + BAND
        for column in range(3):
            left = MARGIN + LABEL + column * (strip + MARGIN)
            panels = pixels[top : top + PANEL, left : left + strip]
            assert (panels[5, 5] == 120).all()  # the image
            assert abs(panels[64, PANEL + GAP + 45].astype(int) - 120).max() < 6  # inside the mask
            assert panels[64, 2 * (PANEL + GAP) + 45, 0] > 150  # the hot spot
        assert (pixels[top : top + PANEL, MARGIN:LABEL] < 100).any()  # the category's name
    colours = pixels.reshape(-1, 3)
    assert (colours[:, 2] > 200).any()
    assert (np.abs(colours.astype(int) - CONTOUR).max(axis=1) < 10).any()


def test_sheet_without_heatmaps_is_not_written(tmp_path):
    run = fake_run(tmp_path / "run")
    assert heatmap_sheet([run], tmp_path / "sheet.png") is None
    assert not (tmp_path / "sheet.png").exists()


def test_sheet_ignores_foreign_pictures_and_names_a_damaged_one(tmp_path):
    (run,) = runs_with_heatmaps(tmp_path, ["bottle"], count=1)
    Image.new("RGB", (50, 50)).save(run / "heatmaps" / "mine.png")
    path = heatmap_sheet([run], tmp_path / "sheet.png")
    with Image.open(path) as sheet:
        assert sheet.width == 640  # one strip; the legend still fits
    (run / "heatmaps" / "crack_001.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="crack_001"):
        heatmap_sheet([run], tmp_path / "sheet.png")


def test_parts_that_resizing_loses_are_drawn():
    source = np.zeros((1000, 2000), bool)
    source[100:300, 100:300], source[800, 1500] = True, True
    small = np.zeros((64, 128), bool)
    small[6:19, 6:19] = True
    drawn = with_small_parts(small, source)
    assert drawn[51, 96] and drawn.sum() == small.sum() + 1
    assert with_small_parts(small, source[:, :1000]).shape == small.shape
