"""``anomalib-rd predict``: images to a table, heatmaps and maps; unreadable ones are listed."""

import errno
import json
import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from small_data import draw

from anomalib_rd import load_run
from anomalib_rd.cli import main
from anomalib_rd.inference import detector as detecting
from anomalib_rd.inference.detector import Prediction
from anomalib_rd.inference.predict import Output, Table, draw_heatmap, find_images, heatmap_size
from anomalib_rd.reports.heatmaps import CAPTION, GAP
from anomalib_rd.results.threshold import Threshold
from anomalib_rd.training.checkpoints import update_checkpoint


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Mixed sizes and modes; two of one name."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)

    def image(height, width):
        return Image.fromarray(np.resize(draw(rng, 96)[0], (height, width, 3)))

    (folder / "inner").mkdir()
    image(70, 90).save(folder / "rgb.png")
    image(70, 90).save(folder / "rgb.jpg")
    image(50, 50).convert("L").save(folder / "grey.bmp")
    image(120, 40).convert("RGBA").save(folder / "inner" / "alpha.png")
    image(64, 64).convert("P").save(folder / "palette.png")
    deep = np.asarray(image(64, 96).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image(40, 100).save(folder / "turned.jpg", exif=exif)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def predict(run, tmp_path):
    def start(*words, run=run):
        out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
        return main(["predict", str(run), *map(str, words), *out])

    return start


@pytest.fixture
def table(tmp_path):
    def read():
        found = pd.read_csv(tmp_path / "out/predictions.csv").set_index("path")
        return found, json.loads((tmp_path / "out/predictions.json").read_text())

    return read


def test_folder_of_any_sizes_and_modes(run, images, predict, table, tmp_path, capsys):
    assert predict(images, "--batch-size", 3) == 0
    found, record = table()
    assert len(found) == len(record["images"]) == 7 and record["failed"] == []
    detector = load_run(run, device="cpu")
    for path, line in found.iterrows():
        one = detector(path)
        assert line["score"] == pytest.approx(one.score, abs=1e-5)
        assert line["verdict"] == detector.threshold.verdict(line["score"])
        assert line["normalised"] == pytest.approx(one.normalised, abs=1e-3)
    drawn = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")}
    names = ("rgb", "rgb_2", "grey", "inner/alpha", "palette", "deep", "turned")
    assert drawn == {f"heatmaps/{name}.png" for name in names}
    assert record["threshold"]["kind"] == "quantile" and record["checkpoint"]["sha256"]
    out = capsys.readouterr().out
    assert "of 7 anomalous" in out


def test_maps_at_the_networks_size(images, predict, tmp_path, run):
    assert predict(f"images={images / 'rgb.png'}", "--maps", "npy", "--no-heatmaps") == 0
    kept = np.load(tmp_path / "out/maps/rgb.npy")
    expected = load_run(run, device="cpu")(images / "rgb.png").anomaly_map
    assert kept.dtype == np.float32 and kept.shape == (64, 64)
    np.testing.assert_allclose(kept, expected, atol=1e-5)
    assert not (tmp_path / "out/heatmaps").exists()


def test_maps_at_the_images_own_size(images, predict, tmp_path, run):
    assert predict(images, "--maps", "tiff", "--original-size", "--no-heatmaps") == 0
    maps = tmp_path / "out/maps"
    shapes = {"rgb": (70, 90), "inner/alpha": (120, 40), "turned": (100, 40), "deep": (64, 96)}
    for name, shape in shapes.items():
        kept = tifffile.imread(maps / f"{name}.tiff")
        assert (kept.dtype, kept.shape) == (np.float16, shape)
    expected = load_run(run, device="cpu")(images / "turned.jpg").full_map()
    np.testing.assert_allclose(tifffile.imread(maps / "turned.tiff"), expected, rtol=2e-3)


def test_outline_is_drawn_exactly_on_anomalous_images(images, predict, tmp_path):
    """The pixel threshold of a quantile is the image's: verdict and picture agree."""
    cyan = np.array([0, 229, 255])

    def outlined(threshold):
        assert predict(images / "rgb.png", "--threshold", threshold) == 0
        drawn = np.asarray(Image.open(tmp_path / "out/heatmaps/rgb.png").convert("RGB"))
        return (drawn == cyan).all(axis=2).any()

    assert not outlined(1e6)
    score = pd.read_csv(tmp_path / "out/predictions.csv")["score"][0]
    assert outlined(score)  # the one pixel that gave the score


def panel(file):
    """(H, W) of the picture without captions and gaps, for each of its three parts."""
    with Image.open(file) as image:
        assert (image.width - 2 * GAP) % 3 == 0
        return image.height - CAPTION, (image.width - 2 * GAP) // 3


def test_heatmaps_keep_the_images_proportions(images, predict, tmp_path):
    words = (images / "rgb.png", images / "inner", images / "turned.jpg", images / "palette.png")
    heatmaps = tmp_path / "out/heatmaps"
    assert predict(*words) == 0
    assert panel(heatmaps / "rgb.png") == (149, 192)  # of 70 x 90
    assert panel(heatmaps / "palette.png") == (192, 192)
    # Of 120 x 40, and 40 x 100 turned upright: the rest is room for the caption.
    assert panel(heatmaps / "alpha.png") == panel(heatmaps / "turned.png") == (192, 192)
    pixels = np.asarray(Image.open(heatmaps / "alpha.png"))[CAPTION:]
    assert (pixels[:, 64:192] == 255).all() and (pixels[:, :64] < 255).all()


def test_heatmaps_of_the_images_own_size_show_its_own_pixels(predict, tmp_path):
    pixels = draw(np.random.default_rng(1), 300)[0]
    Image.fromarray(pixels[:200]).save(tmp_path / "large.png")
    assert predict(tmp_path / "large.png", "--original-size") == 0
    drawn = tmp_path / "out/heatmaps/large.png"
    assert panel(drawn) == (200, 300)
    assert np.array_equal(np.asarray(Image.open(drawn))[CAPTION:, :300], pixels[:200])


def test_unreadable_files_are_listed_and_the_rest_goes_on(images, predict, table, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes((images / "rgb.png").read_bytes()[:100])
    words = [broken, images / "rgb.png", images / "notes.txt", tmp_path / "gone.png"]
    assert predict(*words, images / "deep.tif") == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and "3 images" in told[-1]
    found, record = table()
    assert list(found.index) == [(images / name).as_posix() for name in ("rgb.png", "deep.tif")]
    assert [one["path"] for one in record["failed"]] == [
        path.as_posix() for path in (broken, images / "notes.txt", tmp_path / "gone.png")
    ]


def test_nothing_readable_at_all(predict, table, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    assert predict(broken) == 1
    assert table()[1]["images"] == []


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("{images}/*.webp",), "{images}"),
        (("{empty}",), "{empty}"),
        (("{images}", "{images}/*.txt"), "{images}"),
        (("{images}", "--batch-size", "0"), "--batch-size"),
        (("{images}", "--original-size", "--no-heatmaps"), "--original-size"),
        (("{images}", "--threshold", "nan"), "--threshold"),
        (("{images}", "--maps", "jpg"), "--maps"),
        (("{images}", ""), "IMAGES"),
        (("{images}", "--false-positive-rate", "1"), "--false-positive-rate 1.0"),
        (("{images}", "--false-positive-rate", "0.2", "--threshold", "1"), "--false-positive-rate"),
        ((), "IMAGES"),
    ],
)
def test_user_errors_are_one_line_and_status_2(
    words, part, images, predict, tmp_path_factory, tmp_path, capsys
):
    empty = tmp_path_factory.mktemp("empty")
    assert predict(*(word.format(images=images, empty=empty) for word in words)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and part.format(images=images, empty=empty) in told
    assert not (tmp_path / "out").exists()


def test_unknown_precision(images, predict, capsys):
    assert predict(images, "--precision", "bf17") == 2
    assert "bf17" in capsys.readouterr().err


def test_wrong_run_folder(images, predict, capsys):
    assert predict(images, run=images) == 2
    assert "checkpoints/last.ckpt" in capsys.readouterr().err


def test_output_folder_that_cannot_be_created(run, images, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["--out", str(tmp_path / "file" / "out"), "--device", "cpu"]
    assert main(["predict", str(run), str(images), *words]) == 2
    assert str(tmp_path / "file" / "out") in capsys.readouterr().err


def test_run_without_threshold_gives_no_verdict(images, predict, table, run_copy, capsys):
    update_checkpoint(run_copy / "checkpoints/last.ckpt", threshold=None)
    (run_copy / "result.json").unlink()
    assert predict(images / "rgb.png", run=run_copy) == 0
    assert "--threshold" in capsys.readouterr().out
    found, record = table()
    assert found[["verdict", "normalised"]].isna().all().all() and record["threshold"] is None
    assert predict(images / "rgb.png", "--threshold", 0, run=run_copy) == 0
    assert list(table()[0]["verdict"]) == ["anomalous"]


def test_patterns_and_repeats(images, tmp_path, monkeypatch):
    monkeypatch.chdir(images)
    found = find_images(["*.png", "rgb.png", "inner/*", "**/*.bmp"])
    assert [str(path) for path in found] == [
        *("palette.png", "rgb.png", "inner/alpha.png", "grey.bmp"),
    ]
    odd = tmp_path / "a[1].png"
    Image.new("RGB", (8, 8)).save(odd)
    assert list(find_images([str(odd)])) == [odd]


def test_output_names_are_unique(tmp_path):
    for folder in ("a", "b"):
        for name in ("x.png", "x.jpg", "x_2.png"):
            (tmp_path / folder / name).parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / folder / name)
    names = list(find_images([str(tmp_path / "a"), str(tmp_path / "b")]).values())
    assert len(set(names)) == len(names) == 6


NAMES = [
    b"\xf6.png",
    b"x" * 251 + b".png",
    b"x" * 250 + b"y.png",
    "\u00fc".encode() * 125 + b".png",
]
NAMES += [b"p[left].png", b"a\nb.png", b'a,"b.png', b"\xf6/\xff.png"]


def test_names_of_any_bytes_and_length(images, predict, table, tmp_path, capsys):
    """Not UTF-8, longer than a heatmap's name may be, with what CSV, rich or a terminal read."""
    folder = os.fsencode(tmp_path / "odd")
    for name in NAMES:
        path = tmp_path / "odd" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((images / "rgb.png").read_bytes())
    assert predict(tmp_path / "odd") == 0
    found, record = table()
    assert len(found) == len(NAMES) == len(set(found.index))
    kept = {os.path.relpath(os.fsencode(one["path"]), folder) for one in record["images"]}
    assert kept == set(NAMES)
    drawn = [path for path in (tmp_path / "out/heatmaps").rglob("*.png") if path.is_file()]
    assert len(drawn) == len(NAMES) and record["not_drawn"] == []
    said = capsys.readouterr()
    assert "p[left].png" in said.out and said.out.count("\n") == len(NAMES) + 3 and not said.err


def test_a_picture_that_cannot_be_written_costs_no_other(images, predict, table, tmp_path, capsys):
    (tmp_path / "out/heatmaps/grey.png").mkdir(parents=True)
    assert predict(images) == 1
    found, record = table()
    assert len(found) == 7 and record["complete"]
    (missing,) = record["not_drawn"]
    assert missing["path"] == (images / "grey.bmp").as_posix()
    drawn = [path for path in (tmp_path / "out/heatmaps").rglob("*.png") if path.is_file()]
    assert len(drawn) == 6
    assert "grey.bmp" in capsys.readouterr().err


def test_an_image_too_large_for_the_memory_costs_no_other(images, predict, table, monkeypatch):
    resize = detecting.resize_to_array

    def short_of_memory(image, size):
        if image.size == (50, 50):
            raise MemoryError
        return resize(image, size)

    monkeypatch.setattr(detecting, "resize_to_array", short_of_memory)
    assert predict(images, "--no-heatmaps") == 1
    found, record = table()
    assert len(found) == 6
    assert [one["path"] for one in record["failed"]] == [(images / "grey.bmp").as_posix()]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_images_scored_before_an_interruption_are_in_the_table(
    images, predict, table, monkeypatch, number, status
):
    add, rows = Table.add, []

    def interrupted(self, row):
        add(self, row)
        rows.append(row)
        if len(rows) == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Table, "add", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert predict(images) == status
    except SystemExit as stop:
        assert stop.code == status
    assert signal.getsignal(signal.SIGTERM) is before
    found, record = table()
    assert list(found.index) == [row["path"] for row in rows] and len(rows) == 3
    assert record["complete"] is False
    # The third row was being added.
    assert [one["path"] for one in record["images"]] == list(found.index)[:2]
    asked = [path.as_posix() for path in find_images([str(images)])]
    assert asked == [one["path"] for one in record["images"]] + record["not_judged"]


def test_rows_are_in_the_file_before_the_next_image_is_scored(images, predict, monkeypatch):
    """Whatever ends the process: a kill gives no time to write a table."""
    seen, add = [], Table.add

    def look(self, row):
        seen.append(len(self.path.read_text().splitlines()) - 1)
        add(self, row)

    monkeypatch.setattr(Table, "add", look)
    assert predict(images, "--no-heatmaps") == 0
    assert seen == list(range(7))


def test_on_a_full_disk_all_rows_are_complete(images, predict, table, monkeypatch, capsys):
    class Disk:
        """Takes a few bytes, then no more."""

        def __init__(self, file, room):
            self.file, self.room = file, room

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = self.file.write(data[: self.room])
            self.room -= taken
            return taken

        def __getattr__(self, name):
            return getattr(self.file, name)

    start = Table.__init__

    def small_disk(self, folder):
        start(self, folder)
        self.file = Disk(self.file, 250)

    monkeypatch.setattr(Table, "__init__", small_disk)
    assert predict(images, "--no-heatmaps") == 2
    assert "predictions.csv" in capsys.readouterr().err
    found, record = table()
    assert 0 < len(found) < 7 and found["verdict"].notna().all()
    assert record["complete"] is False and len(record["images"]) == len(found)


def test_an_earlier_predictions_facts_do_not_stay_beside_a_new_table(
    images, predict, table, tmp_path, monkeypatch
):
    assert predict(images / "rgb.png") == 0
    monkeypatch.setattr(Output, "write_facts", lambda *_: None)  # as where the process is killed
    assert predict(images / "grey.bmp", "--no-heatmaps") == 0
    assert not (tmp_path / "out/predictions.json").exists()


def test_a_score_that_is_no_number_is_no_verdict(images, predict, table, monkeypatch):
    score = detecting.Detector.score

    def not_a_number(self, batch):
        found = score(self, batch)
        return [replace(one, score=float("nan")) for one in found]

    monkeypatch.setattr(detecting.Detector, "score", not_a_number)
    assert predict(images / "rgb.png") == 1
    found, record = table()
    assert len(found) == 0 and record["failed"][0]["path"].endswith("rgb.png")


def test_another_false_positive_rate(run, images, predict, table, capsys):
    kept = load_run(run, device="cpu").threshold
    assert predict(images, "--no-heatmaps", "--false-positive-rate", 0.25) == 0
    found, record = table()
    threshold = kept.at_rate(0.25).image
    assert record["threshold"]["image"] == threshold < kept.image
    assert record["threshold"]["false_positive_rate"] == pytest.approx(3 / 13)
    assert "normal_scores" not in record["threshold"]
    assert list(found["verdict"] == "anomalous") == list(found["score"] >= threshold)
    capsys.readouterr()
    assert predict(images, "--no-heatmaps", "--false-positive-rate", 0.01) == 2
    told = capsys.readouterr().err
    assert "99" in told and "12" in told
    assert told.count("\n") == 1


def test_colours_are_those_of_the_runs_heatmaps(run, data_root, predict, tmp_path):
    """An image of the run's own test set: the same map panel, from the same scale."""
    record = json.loads((run / "result.json").read_text())
    assert load_run(run, device="cpu").map_scale == tuple(record["map_scale"])
    low, high = record["map_scale"]
    assert 0 < low < high
    images = data_root / "cloth/test"
    assert predict(images) == 0
    for defect, name in (("square", "000"), ("good", "001")):
        own = run / f"heatmaps/{defect}_{name}.png"
        drawn = tmp_path / f"out/heatmaps/{defect}/{name}.png"
        with Image.open(own) as ours, Image.open(drawn) as new:
            left = 2 * (192 + GAP)
            box = (left, CAPTION, left + 192, CAPTION + 192)
            apart = np.abs(np.asarray(ours.crop(box), int) - np.asarray(new.crop(box), int))
        assert np.median(apart) <= 3


def test_each_small_defect_has_an_outline(tmp_path):
    """A peak of one pixel beside a large one, on a picture that is smaller in one direction."""
    found = np.zeros((256, 256), np.float32)
    found[40:80, 40:80], found[200, 200] = 3.0, 1.1
    threshold = Threshold("given", image=1, pixel=1)
    image = np.full((256, 256, 3), 120, np.uint8)
    one = Prediction(
        score=3.0, anomaly_map=found, size=(512, 128), image=image, threshold=threshold
    )
    size = heatmap_size(one)
    drawn = np.asarray(draw_heatmap(one, Image.fromarray(image), size, "x"))
    outlined = (drawn == (0, 229, 255)).all(axis=2)[CAPTION:]
    y, x = 200 * size[0] // 256, 192 + GAP + 200 * size[1] // 256
    assert outlined[y - 4 : y + 5, x - 4 : x + 5].any()


def test_pictures_drawn_by_anomalib_rd_are_skipped(
    run_copy, images, predict, tmp_path, monkeypatch, caplog
):
    """Those of earlier predictions, of a run and of its evaluations."""
    workdir = tmp_path / "workdir"
    (workdir / "photos").mkdir(parents=True)
    for name in ("rgb.png", "grey.bmp"):
        (workdir / "photos" / name).write_bytes((images / name).read_bytes())
    asked = {workdir / "photos/rgb.png", workdir / "photos/grey.bmp"}
    run_copy.rename(workdir / "a run")
    out = ["--out", str(workdir / "photos/scored"), "--maps", "tiff", "--device", "cpu"]
    assert main(["predict", str(workdir / "a run"), str(workdir), *out]) == 0
    assert set(find_images([str(workdir)])) == asked
    assert "a run/heatmaps" in caplog.text
    monkeypatch.chdir(workdir)
    pattern = set(find_images(["**/*"]))
    assert {path.absolute() for path in pattern} == asked
    drawn = workdir / "photos/scored/heatmaps/photos/rgb.png"
    assert list(find_images([str(drawn)])) == [drawn]  # named itself
    # A folder of this name that is not of ours.
    (workdir / "photos/heatmaps").mkdir()
    drawn.rename(workdir / "photos/heatmaps/mine.png")
    assert set(find_images([str(workdir)])) == {*asked, workdir / "photos/heatmaps/mine.png"}
