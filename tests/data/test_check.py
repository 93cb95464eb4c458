"""The checks of a data set: one finding for each fault, none for valid data."""

import shutil

import numpy as np
import pytest
from image_trees import write_image, write_mask
from PIL import Image

from anomalib_rd.data.dataset_check import (
    Counts,
    check_category,
    find_missing_categories,
    published_counts,
)
from anomalib_rd.data.sources.demo import Demo
from anomalib_rd.data.sources.folder import Folder
from anomalib_rd.data.sources.layouts import BTAD, MPDD, MVTecAD, MVTecAD2, MVTecLOCO, VisA


@pytest.fixture
def parts(tmp_path):
    """One category of no published name: 3 training, 2 normal and 2 defect images, all unlike."""
    folder = tmp_path / "data" / "parts"
    for number, name in enumerate(
        ("train/good/0", "train/good/1", "train/good/2", "test/good/0", "test/good/1")
    ):
        write_image(folder / f"{name}.png", value=number)
    for number in (0, 1):
        write_image(folder / "test" / "hole" / f"{number}.png", value=100 + number)
        write_mask(folder / "ground_truth" / "hole" / f"{number}_mask.png")
    return folder


def findings_of(folder):
    checked = check_category(MVTecAD(folder.parent), folder.name)
    return [(finding.severity, finding.text) for finding in checked.findings]


def test_valid_data_have_counts_and_no_findings(parts):
    steps = []
    checked = check_category(
        MVTecAD(parts.parent), "parts", lambda done, total: steps.append((done, total))
    )
    assert checked.findings == []
    assert checked.counts == Counts(train=3, good=2, defect=2)
    assert (checked.published, checked.masks) == (None, 2)
    assert checked.formats == {(12, 8, "RGB"): 7}
    assert steps == [(done, 7) for done in range(1, 8)]


def test_writes_nothing(parts):
    def state():
        return {path: path.stat().st_mtime_ns for path in parts.rglob("*")}

    before = state()
    check_category(MVTecAD(parts.parent), "parts")
    assert state() == before


def truncate(path):
    path.write_bytes(path.read_bytes()[:-30])


def invert(path):
    """A black defect on white."""
    with Image.open(path) as mask:
        drawn = Image.new("L", mask.size, 255)
    drawn.paste(0, (2, 2, 6, 6))
    drawn.save(path)


@pytest.mark.parametrize(
    ("damage", "severity", "named"),
    [
        (lambda p: truncate(p / "train/good/1.png"), "error", "train/good/1.png"),
        (lambda p: truncate(p / "ground_truth/hole/0_mask.png"), "error", "0_mask.png"),
        (lambda p: write_mask(p / "ground_truth/hole/1_mask.png", (6, 4)), "error", "6x4"),
        (lambda p: (p / "test/hole/1.png").unlink(), "error", "1_mask.png"),
        (lambda p: write_mask(p / "ground_truth/hole/0_mask.png", white=0), "error", "0_mask.png"),
        (lambda p: invert(p / "ground_truth/hole/0_mask.png"), "warning", "0_mask.png"),
        (
            lambda p: (p / "ground_truth/hole/0_mask.png").unlink(),
            "warning",
            "1 of 2 hole images",
        ),
        (lambda p: shutil.rmtree(p / "ground_truth"), "warning", "2 defect images"),
        (lambda p: shutil.rmtree(p / "test/good"), "warning", "normal test images"),
        (
            lambda p: write_image(p / "test/good/leak.bmp", value=1),
            "error",
            "leak.bmp",
        ),
        (
            lambda p: write_image(p / "test/good/2.png", value=101),
            "error",
            "both normal and defect",
        ),
        (lambda p: write_image(p / "train/good/3.png", value=0), "note", "3.png"),
        (lambda p: write_image(p / "test/good/3.png", value=3), "note", "3.png"),
    ],
)
def test_each_fault_is_one_finding(parts, damage, severity, named):
    damage(parts)
    ((how, text),) = findings_of(parts)
    assert how == severity
    assert named in text and "\n" not in text


def test_equal_pixels_of_different_sizes_are_different_images(parts):
    write_image(parts / "test/good/9.png", size=(8, 12), value=1)
    assert findings_of(parts) == []


def test_sizes_and_modes_are_counted_as_stored(parts):
    Image.fromarray(np.full((4, 6), 9, np.uint8)).save(parts / "train/good/grey.png")
    checked = check_category(MVTecAD(parts.parent), "parts")
    assert checked.formats == {(12, 8, "RGB"): 7, (6, 4, "L"): 1}


@pytest.mark.parametrize(("highest", "warned"), [(4095, True), (65535, False)])
def test_12_bit_stored_as_16_is_reported(parts, highest, warned):
    deep = np.linspace(0, highest, 48).reshape(8, 6).astype(np.uint16)
    Image.fromarray(deep).save(parts / "train/good/deep.png")
    Image.fromarray(deep[::-1]).save(parts / "test/good/deep.png")
    findings = findings_of(parts)
    assert [severity for severity, _ in findings] == ["warning"] * warned
    assert all("2 images" in text and "16 of 255" in text for _, text in findings)


def test_lists_all_errors_before_warnings(parts):
    truncate(parts / "test/good/0.png")
    truncate(parts / "train/good/2.png")
    (parts / "ground_truth/hole/0_mask.png").unlink()
    assert [severity for severity, _ in findings_of(parts)] == ["error", "error", "warning"]


def test_one_of_several_masks_has_the_wrong_size(tmp_path):
    folder = tmp_path / "bag"
    for number, name in enumerate(("train/good/0", "test/good/0", "test/logical_anomalies/0")):
        write_image(folder / f"{name}.png", value=number)
    write_mask(folder / "ground_truth/logical_anomalies/0/000.png")
    assert check_category(MVTecLOCO(tmp_path), "bag").findings == []
    write_mask(folder / "ground_truth/logical_anomalies/0/001.png", (6, 4))
    (finding,) = check_category(MVTecLOCO(tmp_path), "bag").findings
    assert "001.png" in finding.text and "6x4" in finding.text


def test_incomplete_copy_of_a_published_category(parts):
    bottle = parts.rename(parts.parent / "bottle")
    ((severity, text),) = findings_of(bottle)
    assert severity == "error"
    assert "3 training images" in text and "209" in text
    (note,) = find_missing_categories(MVTecAD(bottle.parent), ["bottle"])
    assert note.severity == "note" and "cable, capsule" in note.text


def test_your_own_data_have_no_missing_categories(parts):
    assert find_missing_categories(MVTecAD(parts.parent), ["parts"]) == []


@pytest.mark.parametrize(
    ("source", "categories", "total"),
    [
        (MVTecAD, 15, (3629, 467, 1258)),
        (VisA, 12, (8659, 962, 1200)),
        (BTAD, 3, (1799, 451, 290)),
        (MPDD, 6, (888, 176, 282)),
        (MVTecLOCO, 5, (1778, 575, 993)),
        (MVTecAD2, 8, (2528, 379, 705)),
    ],
)
def test_published_counts_sum_to_the_published_totals(tmp_path, source, categories, total):
    table = published_counts(source(tmp_path))
    assert len(table) == categories
    sums = [sum(getattr(c, part) for c in table.values()) for part in ("train", "good", "defect")]
    assert tuple(sums) == total


@pytest.mark.parametrize(("source", "train"), [(MVTecLOCO, 1778 + 305), (MVTecAD2, 2528 + 302)])
def test_counts_include_validation_images_when_trained_on(tmp_path, source, train):
    table = published_counts(source(tmp_path, train_on_validation=True))
    assert sum(counts.train for counts in table.values()) == train


def test_only_published_data_have_published_counts(tmp_path):
    assert published_counts(Folder(tmp_path)) == {}
    derived = type("Mine", (MVTecAD,), {})(tmp_path)
    assert published_counts(derived) == published_counts(object.__new__(Demo)) == {}
