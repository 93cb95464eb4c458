import re
from itertools import combinations

import numpy as np
import pytest
from drawn_runs import drawn_run
from fake_runs import OBJECTS, TEXTURES
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from anomalib_rd.cli import run_command
from anomalib_rd.errors import UserError
from anomalib_rd.reports import figures
from anomalib_rd.reports.figures import write_figures
from anomalib_rd.reports.figures.charts import (
    color_ranges,
    draw_bars,
    draw_differences,
    draw_matrix,
)
from anomalib_rd.reports.figures.curves import KINDS, cache_curves, draw_curves
from anomalib_rd.reports.figures.gallery import choose_examples, draw_gallery, read_examples
from anomalib_rd.reports.figures.style import make_file_name, paper_style, save, shorten
from anomalib_rd.results.record import read_scores
from anomalib_rd.results.runs_table import category_table, load_runs
from anomalib_rd.results.statistics import compare_variants

METRICS = ["image_auroc", "pixel_auroc", "aupro"]
ODD = ["cost $5_a$b%", "naïve^2 {x}_é", "_Ω\\alpha_{1}"]
PRO = KINDS[-1]


@pytest.fixture(autouse=True)
def styled():
    with paper_style():
        yield


@pytest.fixture
def names_of_figures(monkeypatch):
    """The names of the figures, made and not drawn: that takes long."""
    monkeypatch.setattr(figures, "save", lambda figure, path: [path])
    return lambda *arguments: {path.name for path in write_figures(*arguments)}


def sweep(folder, categories, ratios=(0.0,), seeds=(0,), bare=(), **keywords):
    """Runs of the categories; those of ``bare`` have no masks. Gives back their table."""
    for ratio in ratios:
        for category in categories:
            for seed in seeds:
                drawn_run(
                    folder / f"{ratio}-{categories.index(category)}-{seed}",
                    category,
                    seed,
                    masks=category not in bare,
                    config={"model.masking.ratio": ratio},
                    metrics={"image_auroc": 0.95 - 0.02 * ratio},
                    **keywords,
                )
    return load_runs([folder])


def tables(runs):
    summary = category_table(runs)
    return summary, color_ranges(summary, METRICS)


def compared(runs):
    table = compare_variants(runs)
    return table[table["metric"].isin(METRICS)]


def one_matrix(runs, notes=()):
    summary, scales = tables(runs)
    first = summary[summary["variant"] == summary["variant"].iloc[0]]
    return draw_matrix(first, METRICS, scales, "title", notes)


def texts(figure):
    """What is written in a figure, once it is drawn."""
    FigureCanvasAgg(figure).draw()
    ticks = [(a, tick) for x in figure.axes for a in (x.xaxis, x.yaxis) for tick in a.majorTicks]
    # Ticks beyond the axis exist, and are not drawn.
    beyond = [
        tick.label1 for axis, tick in ticks
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    ]  # fmt: skip
    found = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    return [text for text in found if text not in beyond]


def words(figure):
    return [text.get_text() for text in texts(figure)]


def all_kinds(runs):
    return [
        one_matrix(runs),
        draw_bars(category_table(runs), METRICS, "title", []),
        draw_curves(runs, PRO, cache_curves(), "title"),
    ]


@pytest.mark.slow
def test_figures_are_written_as_pdf_and_png(tmp_path):
    sweep(tmp_path / "runs", ["bottle", "grid"], ratios=(0.0, 0.3))
    files = write_figures([tmp_path / "runs"], tmp_path / "out")
    names = {path.stem for path in files}
    assert names == {
        *("bars", "differences", *(f"curves-{kind.name}" for kind in KINDS)),
        *(f"{kind}-rd4ad-resnet18-ratio={ratio}" for kind in ("matrix", "gallery") for ratio in
          ("0.0", "0.3")),
    }  # fmt: skip
    assert sorted(files) == sorted((tmp_path / "out/figures").iterdir())
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
                assert 1000 < picture.width <= 2160
        else:
            content = path.read_bytes()
            assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
            # Fonts are embedded as TrueType: text stays text.
            assert b"/FontFile2" in content and b"/Type3" not in content


def test_a_figure_drawn_again_has_the_same_bytes(tmp_path):
    runs = sweep(tmp_path / "runs", ["bottle"], gallery=False)
    for name in ("a", "b"):
        save(one_matrix(runs), tmp_path / name)
    for form in ("pdf", "png"):
        one, other = ((tmp_path / f"{name}.{form}").read_bytes() for name in ("a", "b"))
        assert one == other


def test_several_data_sets_are_kept_apart(tmp_path, names_of_figures):
    for data in ("mvtec", "my/parts"):
        drawn_run(tmp_path / data, "bottle", data=data, gallery=False)
    assert {"mvtec-bars", "my-parts-bars"} <= names_of_figures([tmp_path])


def test_names_are_shown_as_they_are(tmp_path):
    runs = sweep(tmp_path, ODD)
    for figure in all_kinds(runs):
        shown = texts(figure)
        assert set(ODD) <= {text.get_text() for text in shown}
        assert not any(text.get_parse_math() for text in shown)
    rows = [(category, read_examples(run)) for category, run in zip(ODD, runs["run"], strict=True)]
    assert set(ODD) <= set(words(draw_gallery(rows, "a $title$_{x}")))


def test_undefined_is_blank_with_its_reason(tmp_path):
    runs = sweep(tmp_path / "runs", ["bottle", "transistor"], bare=["transistor"])
    figure = one_matrix(runs)
    cells = [t for t in figure.axes[0].texts if round(t.get_position()[1]) == 1]
    assert [round(cell.get_position()[0]) for cell in cells] == [0]
    assert not any(re.match(r"(nan|0\.0)", text) for text in words(figure))
    shown = draw_bars(category_table(runs), METRICS, "title", [])
    FigureCanvasAgg(shown).draw()
    heights = [bar.get_height() for bar in shown.axes[1].patches]
    assert np.isnan(heights[1]) and heights[0] > 90
    assert [len(line.get_xdata()) for line in shown.axes[1].lines[:1]] == [1]  # the cross
    curves = draw_curves(runs, PRO, cache_curves(), "title")
    assert "undefined" in words(curves)
    assert "transistor: undefined: 3 of 3 defect images have no ground-truth mask" in "".join(
        words(curves)
    ).replace("\n", " ")


def test_what_no_run_has_is_not_drawn(tmp_path, names_of_figures):
    runs = sweep(tmp_path, ["transistor"], bare=["transistor"], gallery=False)
    assert draw_curves(runs, PRO, cache_curves(), "title") is None
    names = names_of_figures([tmp_path])
    assert names == {"matrix-rd4ad-resnet18", "bars", "curves-roc-image", "curves-pr-image"}


def test_one_category_and_seed_has_no_mean_spread_or_legend(tmp_path):
    runs = sweep(tmp_path, ["bottle"])
    table, chart, curves = all_kinds(runs)
    assert "bottle" in words(table) and "mean all" not in words(table)
    assert not any("±" in text for text in words(table))
    assert not chart.legends and not curves.legends


def test_seeds_have_a_spread_and_a_line_each(tmp_path):
    runs = sweep(tmp_path, ["bottle"], seeds=(0, 1, 2))
    table, chart, curves = all_kinds(runs)
    assert any("±" in text for text in words(table))
    (bars_of_error,) = chart.axes[0].collections
    assert len(bars_of_error.get_segments()) == 1
    drawn = [line for line in curves.axes[0].lines if len(line.get_xdata()) > 2]
    assert len(drawn) == 3
    limits = [line.get_xdata() for line in curves.axes[0].lines if len(line.get_xdata()) == 2]
    assert [list(at) for at in limits] == [[0.3, 0.3]]


def test_fifteen_categories_of_four_variants_do_not_overlap(tmp_path):
    categories = [*TEXTURES, *OBJECTS]
    runs = sweep(tmp_path, categories, ratios=(0.0, 0.3, 0.5, 0.7), bare=["transistor"])
    figures = [*all_kinds(runs), draw_differences(compared(runs), "title")]
    for figure in figures:
        shown = texts(figure)
        boxes = [(t.get_text(), t.get_window_extent()) for t in shown if t.get_rotation() == 0]
        for (a, one), (b, other) in combinations(boxes, 2):
            apart = min(one.x1, other.x1) - max(one.x0, other.x0) < 1
            assert apart or min(one.y1, other.y1) - max(one.y0, other.y0) < 1, (a, b)
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert drawn.x0 >= -0.01 and drawn.x1 <= width + 0.01
        assert drawn.y0 >= -0.01 and drawn.y1 <= height + 0.01


def test_rotated_names_keep_their_distance(tmp_path):
    runs = sweep(tmp_path, [*TEXTURES, *OBJECTS], ratios=(0.0, 0.3, 0.5, 0.7), gallery=False)
    figure = draw_bars(category_table(runs), METRICS, "title", [])
    FigureCanvasAgg(figure).draw()
    names = [t for t in figure.axes[-1].get_xticklabels() if t.get_text()]
    assert len(names) == 16
    steps = np.diff([t.get_position()[0] for t in names])
    pixels = figure.axes[-1].transData.transform([(0, 0), (steps.min(), 0)])
    apart = (pixels[1] - pixels[0])[0] * np.sin(np.radians(names[0].get_rotation()))
    assert apart > names[0].get_fontsize() * figure.dpi / 72


def test_differences_have_intervals_and_a_hollow_point_where_there_is_none(tmp_path):
    many = sweep(tmp_path / "many", ["bottle", "grid", "tile"], ratios=(0.0, 0.3))
    figure = draw_differences(compared(many), "title")
    assert [axes.get_title() for axes in figure.axes] == [
        *("image AUROC", "pixel AUROC", "AUPRO FPR≤0.3"),
    ]
    _, interval, point = figure.axes[0].lines
    assert point.get_xdata()[0] == pytest.approx(-0.6)
    assert list(interval.get_xdata()) == pytest.approx([-0.6, -0.6])  # no noise in it
    left, right = figure.axes[0].get_xlim()
    assert left < -0.6 and right > 0
    one = sweep(tmp_path / "one", ["bottle"], ratios=(0.0, 0.3))
    figure = draw_differences(compared(one), "title")
    _, point = figure.axes[0].lines
    assert point.get_markerfacecolor() == "white"
    assert "Hollow" in " ".join(words(figure))


def test_pictures_are_the_hard_and_the_typical_ones(tmp_path):
    run = drawn_run(tmp_path, "bottle")
    found = read_examples(str(run))
    captions = {kind: f"{image.defect}, {image.score:.3g}" for kind, image in found.items()}
    assert captions == {
        "lowest-scored defect": "crack, 0.3",
        "typical defect": "hole, 0.6",
        "highest-scored normal": "good, 0.5",
    }
    assert found["typical defect"].mask.any() and not found["highest-scored normal"].mask.any()
    figure = draw_gallery([("bottle", found)], "title")
    assert len(figure.axes) == 9
    contours = [axes.collections for axes in figure.axes]
    assert sum(map(len, contours)) == 2  # the normal image has none


def test_pictures_without_ground_truth_say_so(tmp_path):
    run = drawn_run(tmp_path, "transistor", masks=False)
    figure = draw_gallery([("transistor", read_examples(str(run)))], "title")
    assert words(figure).count("no ground truth") == 2


def test_kinds_that_a_test_set_lacks_are_left_out(tmp_path):
    run = drawn_run(tmp_path, "bottle")
    found = read_examples(str(run))
    scores = read_scores(run)
    assert list(choose_examples(scores[scores["label"] == 0])) == ["highest-scored normal"]
    del found["highest-scored normal"]
    assert "none" in words(draw_gallery([("bottle", found)], "title"))


def test_long_galleries_are_paged(tmp_path, names_of_figures):
    sweep(tmp_path, [f"part{number:02}" for number in range(10)])
    names = {name for name in names_of_figures([tmp_path]) if name.startswith("gallery")}
    assert names == {"gallery-rd4ad-resnet18-1", "gallery-rd4ad-resnet18-2"}


def test_a_damaged_gallery_is_named(tmp_path, names_of_figures):
    run = drawn_run(tmp_path / "a", "bottle")
    (run / "gallery.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"gallery\.zip"):
        names_of_figures([tmp_path])


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    sweep(tmp_path / "runs", ["bottle"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        write_figures([tmp_path / "runs"], tmp_path / "file")


def test_the_command_writes_them_where_it_is_asked_to(tmp_path, capsys, names_of_figures):
    sweep(tmp_path / "runs", ["bottle"], gallery=False)
    assert run_command(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain/figures").exists()
    words = ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--figures"]
    assert run_command(words) == 0
    assert str(tmp_path / "out" / "figures") in capsys.readouterr().out


def test_names_of_files_and_labels_are_kept_apart():
    taken = set()
    assert make_file_name("a/b c", taken) == "a-b-c"
    assert make_file_name("A b C", taken) == "A-b-C-2"
    assert make_file_name("../..", taken) == "figure"
    assert len(make_file_name("é" * 300, taken)) == 80
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghijk", 7) == "abc…ijk"
