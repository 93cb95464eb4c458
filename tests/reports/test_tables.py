import io
import math
import re

import pytest
from fake_runs import OBJECTS, TEXTURES, fake_result, fake_run, full_run
from rich.console import Console

from anomalib_rd.reports.page import build_page
from anomalib_rd.reports.report import make_document
from anomalib_rd.reports.table_model import Column, Notes, Row, Table
from anomalib_rd.reports.text_tables import print_document, to_latex, to_markdown
from anomalib_rd.results.published import load_published
from anomalib_rd.results.record import find_failures, write_failure
from anomalib_rd.results.runs_table import load_runs
from anomalib_rd.results.statistics import compare_variants

PIXEL = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_5")


def document(folder):
    runs = load_runs([folder])
    return make_document(runs, compare_variants(runs), find_failures(folder), load_published())


def printed(folder, width=100):
    console = Console(file=io.StringIO(), width=width)
    print_document(document(folder), console)
    return console.file.getvalue()


def line(text, start):
    (found,) = [row for row in text.splitlines() if row.startswith(start)]
    return found


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory):
    """All categories, two seeds, one category without masks."""
    folder = tmp_path_factory.mktemp("mvtec")
    for category in (*TEXTURES, *OBJECTS):
        for seed in (0, 1):
            metrics = {"image_auroc": 0.97 + 0.02 * seed}
            undefined = {}
            if category == "transistor":
                metrics |= dict.fromkeys(PIXEL, math.nan)
                undefined = dict.fromkeys(PIXEL, "40 of 40 defect images have no mask")
            run = folder / f"{category}-{seed}"
            fake_run(run, category, seed, metrics=metrics, undefined=undefined)
    return folder


def test_a_hundred_columns_hold_our_means_and_two_reported_methods(mvtec):
    text = printed(mvtec)
    assert max(map(len, text.splitlines())) <= 100
    # Mean of 97 and 99, std sqrt(2); nothing is cut off.
    assert "98.00±1.41" in line(text, "bottle")
    assert line(text, "bottle").split()[-2:] == ["100/98.7/96.6", "100/98.8/97.0"]
    # Pixel metrics are undefined in transistor: theirs are the mean of the other 14 too.
    assert line(text, "mean all").split()[-2:] == ["98.5/98.2/95.1", "99.4/98.5/95.9"]
    assert "RD4AD WRN50*" in text
    assert "…" not in text
    assert "%" in text


def test_protocol_seeds_and_data_are_stated(mvtec):
    text = " ".join(printed(mvtec).split())
    assert "last epoch, 5 epochs, 256x256 pixels" in text
    assert "Seeds 0, 1 (" in text
    assert "Data: mvtec, 15 categories" in text


def test_textures_come_first_then_objects_each_with_a_mean(mvtec):
    labels = [row.label for row in document(mvtec).tables[0].rows()]
    ours = [*TEXTURES, "mean textures", *OBJECTS, "mean objects", "mean all"]
    assert labels[: len(ours)] == ours
    assert labels[len(ours)] == "FMG-RD paper"
    assert "RD4AD RN18*" in labels


def test_undefined_is_a_dash_with_its_reason(mvtec):
    text = printed(mvtec)
    assert "–¹" in line(text, "transistor")
    assert "0.00" not in line(text, "transistor").split("±", 1)[0]
    assert "¹ undefined in transistor: 40 of 40 defect images have no mask" in text
    assert "mean over 9 of 10 categories" in text
    assert "mean over 14 of 15 categories" in text


def test_undefined_metrics_have_no_column_and_one_remark_for_each_kind_of_reason(tmp_path):
    for number, category in enumerate(("a", "b", "c"), start=1):
        undefined = dict.fromkeys(PIXEL, f"{number} of 5 defect images have no mask")
        metrics = dict.fromkeys(PIXEL, math.nan)
        keywords = {"metrics": metrics, "undefined": undefined, "data": "own"}
        fake_run(tmp_path / category, category, **keywords)
    (table,) = document(tmp_path).tables
    assert [column.name for column in table.columns] == ["image AUROC", "image AP", "image F1max"]
    (about,) = [note for note in table.footnotes() if "1 of 5" in note]
    assert "a, b, c" in about and "pixel AUROC, pixel AP" in about
    assert not any("2 of 5" in note for note in table.footnotes())


def test_defects_without_pixel_metrics_are_named_below_the_table(tmp_path):
    judged = {"crack": {"judged": 4, "of": 4}, "scratch": {"judged": 1, "of": 5}}
    for category in ("a", "b"):
        protocol = fake_result()["protocol"] | {"pixels_judged": judged}
        fake_run(tmp_path / category, category, protocol=protocol)
    (table,) = document(tmp_path).tables
    (note,) = [line for line in table.footnotes() if "no mask" in line]
    assert note.startswith("a, b: ") and note.endswith(": scratch (1 of 5)")


def test_a_row_must_have_a_cell_for_each_column():
    columns = [Column(("a",)), Column(("b",))]
    with pytest.raises(ValueError, match="row 'x'"):
        Table("t", "", "l", columns, [[Row("x", ("1",))]], Notes(), [])


def test_below_chance_is_marked_in_every_format(tmp_path):
    full_run(tmp_path / "a", "bottle", data="own", gallery=False, metrics={"image_auroc": 0.24})
    full_run(tmp_path / "b", "pill", data="own", gallery=False, metrics={"aupro": 0.24})
    for text in formats(tmp_path):
        assert "below chance" in text
    (table,) = document(tmp_path).tables
    place = [column.name for column in table.columns].index("image AUROC")
    cells = {row.label: row.cells[place] for row in table.rows()}
    assert cells == {"bottle": "24.00¹", "pill": "98.00", "mean all": "61.00"}
    assert formats(tmp_path)[-1].count('class="chance"') == 2  # the matrix and the list of runs


def test_unverified_numbers_are_starred_and_sourced(mvtec):
    text = " ".join(printed(mvtec, 300).split())
    assert "RD4AD WRN50*: as reported, not verified;" in text
    assert "arXiv 2201.10703" in text
    assert "ReContrast*" not in text
    # Its means are over all 15, and our pixel metrics are not.
    assert line(printed(mvtec), "FMG-RD paper").split() == ["FMG-RD", "paper", "99.1"]


def test_published_means_of_all_categories(tmp_path):
    for category in (*TEXTURES, *OBJECTS):
        fake_run(tmp_path / category, category)
    text = printed(tmp_path)
    assert line(text, "mean all").split()[-2:] == ["98.5/97.8/93.9", "99.4/98.3/95.0"]
    assert line(text, "FMG-RD paper").split()[2:] == ["99.1", "98.5", "95.9†"]


def test_a_narrow_terminal_names_its_hidden_columns(mvtec):
    text = printed(mvtec, 70)
    assert max(map(len, text.splitlines())) <= 70
    shown, hidden = text.split("Columns hidden")
    assert "RD4AD WRN50*" in hidden and "RD4AD WRN50*" not in shown
    assert "Columns hidden" not in printed(mvtec, 300)


def test_markdown_has_every_column_and_the_same_cells(mvtec):
    text = to_markdown(document(mvtec))
    rows = [row for row in text.splitlines() if row.startswith("|")]
    assert len({row.count("|") - row.count("\\|") for row in rows}) == 1
    header = rows[0]
    for heading in (
        "image F1max %",
        "pixel AP %",
        "AUPRO FPR≤0.3 %",
        "PatchCore image/pixel/PRO %",
    ):
        assert heading in header
    assert "| 98.00±1.41 |" in line(text, "| bottle")
    assert "**98.00±1.41**" in line(text, "| **mean all**")
    assert "RD4AD WRN50\\*: as reported, not verified" in text


def test_part_of_the_categories_is_compared_over_that_part(tmp_path):
    for category in ("bottle", "cable"):
        fake_run(tmp_path / category, category)
    text = printed(tmp_path)
    assert "97.5/98.1/93.8" in line(text, "mean all")  # of bottle and cable
    assert "FMG-RD paper" not in text
    assert "MRKD" not in text
    assert "mean objects" not in text  # the same as mean all


def formats(folder):
    """The report in the terminal, as Markdown, as LaTeX and as a page."""
    page = build_page([folder], folder / "report.html").read_text()
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    return [printed(folder), to_markdown(document(folder)), to_latex(document(folder)), shown]


def test_a_category_that_nobody_reports_stands_alone(tmp_path):
    full_run(tmp_path / "run", "metal_plate", gallery=False)
    methods = [*load_published().values()]
    for text in formats(tmp_path):
        assert "metal_plate" in text.replace("\\_", "_")
        assert [method.name for method in methods if method.name in text] == []
        assert "–/–" not in text and "†" not in text and "Published results" not in text


def test_others_have_numbers_for_their_categories_alone(tmp_path):
    for category in ("bottle", "metal_plate"):
        full_run(tmp_path / category, category, gallery=False)
    (table,) = document(tmp_path).tables
    place = [column.name for column in table.columns].index("RD4AD WRN50*")
    cells = {row.label: row.cells[place] for row in table.rows()}
    assert cells == {"bottle": "100/98.7/96.6", "metal_plate": "", "mean all": ""}
    page = formats(tmp_path)[-1]
    assert "Beside published numbers" not in page and "RD4AD WRN50" not in page


def test_fifteen_other_categories_are_not_the_fifteen(tmp_path):
    for category in (*TEXTURES, *OBJECTS[:-1], "metal_plate"):
        fake_run(tmp_path / category, category)
    text = printed(tmp_path)
    assert "FMG-RD paper" not in text
    assert "/" not in line(text, "mean all") and "/" in line(text, "mean textures")


def test_variants_on_different_categories_have_nothing_reported_beside_their_means(tmp_path):
    fake_run(tmp_path / "a", "bottle")
    for category in ("bottle", "cable"):
        config = {"model.masking.strategy": "random"}
        fake_run(tmp_path / f"b-{category}", category, config=config)
    assert "RD4AD WRN50*" not in [row.label for row in document(tmp_path).tables[0].rows()]


def test_other_data_has_no_reported_numbers(tmp_path):
    fake_run(tmp_path, data="demo", category="brick")
    text = printed(tmp_path)
    assert "RD4AD WRN50" not in text
    assert "paper" not in text
    assert "mean all" not in text  # one category
    assert "±" not in text  # one seed


def test_several_variants_have_an_overview_first(tmp_path):
    for strategy, value in (("none", 0.9), ("block", 0.95)):
        for category in ("bottle", "cable"):
            metrics = {"image_auroc": value}
            config = {"model.masking.strategy": strategy}
            fake_run(tmp_path / f"{category}-{strategy}", category, metrics=metrics, config=config)
    overview, differences, *singles = document(tmp_path).tables
    assert len(singles) == 2
    assert differences.title == "Differences to strategy=none on mvtec"
    assert {row.label: row.cells[0] for row in overview.sections[0]} == {
        "strategy=none": "90.00",
        "strategy=block": "95.00",
    }
    assert "| categories | seeds |" in to_markdown(document(tmp_path))
    reported = {row.label: row.cells[0] for row in overview.sections[1]}
    assert reported["RD4AD WRN50*"] == "97.5"
    assert printed(tmp_path).count("Published results") == 1


def test_failures_are_listed_as_they_are(tmp_path):
    fake_run(tmp_path / "0")
    write_failure(tmp_path / "1", RuntimeError("CUDA out of memory\n[bold]tried[/bold]"))
    for text in (printed(tmp_path, 200), to_markdown(document(tmp_path)).replace("\\", "")):
        assert "Failed runs: 1" in text
        assert "RuntimeError: CUDA out of memory [bold]tried[/bold]" in text


def test_an_opt_in_metric_has_a_column_only_if_asked_for(tmp_path):
    fake_run(tmp_path / "0")
    assert "PRO per image %" not in to_markdown(document(tmp_path))
    fake_run(tmp_path / "1", "cable", metrics={"pro_rd4ad": 0.94})
    text = to_markdown(document(tmp_path))
    assert "PRO per image %" in text
    assert "undefined in bottle: no reason recorded" in text


def test_an_oracle_is_a_remark_not_the_headline(tmp_path):
    fake_run(tmp_path, oracle={"epoch": 2, "image_auroc": 0.999, "aupro": 0.95})
    text = printed(tmp_path, 200)
    assert "98.00" in line(text, "bottle")
    assert "99.90" not in line(text, "bottle")
    assert "image AUROC 99.90" in line(text, "Oracle")


def test_remarks_on_missing_seeds_and_repeats_and_a_variant_for_other_images(tmp_path):
    fake_run(tmp_path / "a0", "bottle", 0)
    fake_run(tmp_path / "a1", "bottle", 1)
    fake_run(tmp_path / "b0", "cable", 0)
    fake_run(tmp_path / "b0-again", "cable", 0)
    other = fake_run(tmp_path / "b0-other", "cable", 0) / "result.json"
    other.write_text(other.read_text().replace("sha-cable", "sha-other"))
    text = printed(tmp_path, 200)
    assert "1 of 2 seeds" in text
    assert line(text, "1 run repeats")
    assert "fingerprint=sha-othe" in text


def test_the_time_of_a_run_is_readable(tmp_path):
    fake_run(tmp_path, duration_s={"train": 0, "test": 0, "total": 754})
    assert "12 min 34 s" in " ".join(printed(tmp_path).split())


def test_no_time_of_runs_that_were_not_timed(tmp_path):
    fake_run(tmp_path, duration_s={})
    assert "time per run" not in printed(tmp_path)
