"""Images that change during a run, are outside of the root, or have unusual names."""

import json
import logging
import os
import random
import shutil

import numpy as np
import pytest
import torch
from interrupting import PowerCutError, stopping
from PIL import ExifTags, Image
from small_data import make_mvtec

from anomalib_rd.cli import main, sweep
from anomalib_rd.data.dataset import AnomalyDataset, TileDataset
from anomalib_rd.data.sources.layouts import MVTecAD
from anomalib_rd.errors import UserError
from anomalib_rd.results.record import read_record, read_scores
from anomalib_rd.training.train import train

QUICK = ("report.heatmaps=0", "report.gallery=0", "callbacks.checkpoint.every_s=0")


@pytest.fixture
def run(compose_config, tmp_path, mvtec_copy):
    """Train a small run on images that may be changed; returns its folder."""

    def start(folder, *overrides):
        path = tmp_path / folder
        train(compose_config(*QUICK, f"data.root={mvtec_copy}", f"run_dir={path}", *overrides))
        return path

    start.data = mvtec_copy / "cloth"
    return start


def exchange(path):
    Image.new("RGB", (64, 64), (20, 200, 20)).save(path)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


class TestChanged:
    def cut(self, run, tmp_path):
        with pytest.raises(PowerCutError):
            run("cut", "trainer.max_epochs=4", *stopping(tmp_path / "marker"))

    @pytest.mark.parametrize("how", ["exchanged", "added", "removed"])
    def test_a_run_is_not_resumed_with_other_training_images(self, run, tmp_path, how):
        self.cut(run, tmp_path)
        before = (tmp_path / "cut/checkpoints/last.ckpt").read_bytes()
        if how == "removed":
            (run.data / "train/good/000.png").unlink()
        else:
            exchange(run.data / f"train/good/{'000' if how == 'exchanged' else '999'}.png")
        with pytest.raises(UserError) as refused:
            run("cut", "trainer.max_epochs=4")
        line = str(refused.value)
        assert f"1 of {7 if how == 'added' else 6} training images" in line
        assert ("999.png" if how == "added" else "000.png") in line and "\n" not in line
        assert (tmp_path / "cut/checkpoints/last.ckpt").read_bytes() == before
        assert not (tmp_path / "cut/result.json").exists()

    def test_a_run_resumed_with_other_test_images_warns(self, run, tmp_path, caplog):
        self.cut(run, tmp_path)
        exchange(run.data / "test/good/001.png")
        run("cut", "trainer.max_epochs=4")
        assert [text for text in warnings(caplog) if "test/good/001.png" in text]
        assert read_record(tmp_path / "cut")["protocol"]["resumed_from_epoch"] == 2

    def test_the_fingerprint_does_not_depend_on_the_folder(self, run, tmp_path, compose_config):
        self.cut(run, tmp_path)
        shutil.copytree(run.data.parent, tmp_path / "moved")
        # As where an environment variable says the place: the config as written is the same.
        kept = torch.load(tmp_path / "cut/checkpoints/last.ckpt", weights_only=True)
        from anomalib_rd.data.fingerprint import dataset_fingerprint, hash_files

        split = MVTecAD(tmp_path / "moved").split("cloth")
        assert kept["data_files"] == hash_files(split, tmp_path / "moved")
        assert kept["data_fingerprint"] == dataset_fingerprint(split, tmp_path / "moved")

    def test_images_changed_during_the_run_are_named(self, run, caplog, monkeypatch):
        from anomalib_rd.training import train as module

        def test_and_exchange(*words, **options):
            exchange(run.data / "train/good/003.png")
            return show(*words, **options)

        show = module.save_heatmaps
        monkeypatch.setattr(module, "save_heatmaps", test_and_exchange)
        run("run", "trainer.max_epochs=1")
        assert len([text for text in warnings(caplog) if "train/good/003.png" in text]) == 1

    def test_a_complete_run_of_other_images_is_named(self, compose_config, run, monkeypatch):
        folder = run("run", "trainer.max_epochs=1")
        cfg = compose_config(*QUICK, f"data.root={run.data.parent}", f"run_dir={folder}")
        assert not sweep.data_changed(folder, cfg)
        # It is read once a process, so here once more.
        sweep.current_fingerprint.cache_clear()
        exchange(run.data / "train/good/000.png")
        assert sweep.data_changed(folder, cfg)
        counted = []
        monkeypatch.setattr(
            "anomalib_rd.data.fingerprint.dataset_fingerprint", lambda *_: counted.append(1) or "x"
        )
        sweep.current_fingerprint.cache_clear()
        assert all(sweep.data_changed(folder, cfg) for _ in range(5)) and len(counted) == 1
        shutil.rmtree(run.data)
        sweep.current_fingerprint.cache_clear()
        assert not sweep.data_changed(folder, cfg)

    def test_a_complete_sweep_names_its_runs(self, tmp_path, monkeypatch, capfd):
        root = make_mvtec(tmp_path / "mvtec", categories=("cloth",))
        monkeypatch.chdir(tmp_path)
        words = [
            "train",
            "-m",
            "data=mvtec",
            f"data.root={root}",
            "data.category=cloth",
            "seed=0,1",
        ]
        words += ["data.image_size=[64,64]", "data.num_workers=0", "trainer=cpu", "logger=none"]
        words += ["model=untrained", "report.html=false", *QUICK, "sweep=s"]
        assert main(words) == 0
        capfd.readouterr()
        sweep.current_fingerprint.cache_clear()
        with pytest.raises(SystemExit):
            main(words)
        assert "fingerprint" not in capfd.readouterr().err
        exchange(root / "cloth/test/good/000.png")
        sweep.current_fingerprint.cache_clear()
        with pytest.raises(SystemExit) as stop:
            main(words)
        told = [line for line in capfd.readouterr().err.splitlines() if "fingerprint" in line]
        assert len(told) == 1 and "2 complete runs" in told[0] and stop.value.code == 0

    def test_evaluate_names_changed_images(self, run, capsys):
        folder = run("run", "trainer.max_epochs=1")
        exchange(run.data / "test/good/000.png")
        words = [
            "evaluate",
            str(folder),
            "--device",
            "cpu",
            "report.heatmaps=0",
            "report.gallery=0",
        ]
        assert main([*words, "--name", "a"]) == 0
        assert "fingerprint" in capsys.readouterr().out
        made = json.loads((folder / "evaluations/a/evaluation.json").read_text())
        assert made["evaluation"]["same_data"] is False
        assert main([*words, "--name", "b", f"data.root={run.data.parent}"]) == 0
        assert "fingerprint" not in capsys.readouterr().out


FLIP = "data.transform={_target_:torchvision.transforms.v2.RandomHorizontalFlip}"


class TestTransform:
    def test_a_transform_does_not_depend_on_workers_or_resuming(self, run, tmp_path):
        words = (FLIP, "trainer.max_epochs=3", "data.train_batch_size=4")
        losses = []
        for number in (0, 2, 1):
            folder = run(f"run{number}", *words, f"data.num_workers={number}")
            losses.append(read_record(folder)["loss_curve"])
        assert losses[0] == losses[1] == losses[2]
        with pytest.raises(PowerCutError):
            run("cut", *words, *stopping(tmp_path / "marker", epoch=1))
        assert read_record(run("cut", *words, "data.num_workers=2"))["loss_curve"] == losses[0]

    @pytest.fixture
    def drawn(self, mvtec_root):
        """The numbers that a transform draws for an item from torch, NumPy and Python."""

        def transform(image):
            return torch.tensor([torch.rand(()), np.random.rand(), random.random()])

        samples = MVTecAD(mvtec_root).split("cloth").train
        return lambda seed: AnomalyDataset(samples, (64, 64), transform, seed=seed)

    def test_random_numbers_depend_only_on_seed_epoch_and_image(self, drawn):
        items = {
            (seed, epoch, index): tuple(drawn(seed)[index, epoch]["image"].tolist())
            for seed in (0, 1)
            for epoch in (0, 1)
            for index in (3, 0, 2)
        }
        assert len(set(items.values())) == 12
        assert items[1, 1, 2] == tuple(drawn(1)[2, 1]["image"].tolist())

    def test_reading_does_not_change_the_random_state_of_the_training(self, drawn):
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        expected = torch.rand(2).tolist(), np.random.rand(), random.random()
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        drawn(5)[0, 0]
        assert (torch.rand(2).tolist(), np.random.rand(), random.random()) == expected

    def test_tiles_come_from_one_transformed_image(self, mvtec_root):
        samples = MVTecAD(mvtec_root).split("cloth").train
        whole = AnomalyDataset(
            samples, (64, 64), lambda image: image + torch.randint(9, image.shape).to(image), seed=1
        )
        boxes = [(slice(0, 32), slice(0, 64)), (slice(32, 64), slice(0, 64))]
        tiles = TileDataset(whole, boxes)
        parts = torch.cat([tiles[4, 7]["image"], tiles[5, 7]["image"]], dim=1)
        assert torch.equal(parts, whole[2, 7]["image"])
        assert not torch.equal(parts, whole[2, 8]["image"])


def own_images(root):
    """The free layout."""
    make_mvtec(root / "made", categories=("c",))
    for source, target in (
        ("train/good", "parts/normal"),
        ("test/good", "elsewhere/normal"),
        ("test/square", "elsewhere/defect/square"),
        ("ground_truth/square", "elsewhere/masks/square"),
    ):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / "made/c" / source).rename(root / target)
    return root


@pytest.fixture
def own(tmp_path, compose_config):
    own_images(tmp_path)

    def start(*overrides):
        words = [
            "data=folder",
            "data.category=all",
            "trainer.max_epochs=1",
            "report.gallery=all",
            "report.heatmaps=8",
        ]
        train(compose_config(*words, f"data.root={tmp_path}/parts", *overrides))
        return tmp_path / "run"

    start.root = tmp_path
    start.elsewhere = [
        f"data.source.normal_test={tmp_path}/elsewhere/normal",
        f"data.source.defect={tmp_path}/elsewhere/defect",
        f"data.source.masks={tmp_path}/elsewhere/masks",
    ]
    return start


def test_folders_outside_of_the_root(own):
    folder = own(*own.elsewhere)
    paths = list(read_scores(folder)["path"])
    assert "../elsewhere/defect/square/000.png" in paths
    assert all((own.root / "parts" / path).is_file() for path in paths)
    assert list((folder / "heatmaps").glob("*.png")) and (folder / "gallery.zip").is_file()


@pytest.mark.parametrize("place", ["parts/normal", "elsewhere/normal", "elsewhere/defect/square"])
def test_a_name_that_is_not_utf8(own, place, capsys):
    """For example from an old archive; the run completes, and its files are UTF-8."""
    strange = os.fsdecode(b"\xf6\xfc")
    (own.root / place / "000.png").rename(own.root / place / f"{strange}.png")
    mask = own.root / "elsewhere/masks/square/000_mask.png"
    if "defect" in place:
        mask.rename(mask.with_name(f"{strange}_mask.png"))
    folder = own(*own.elsewhere, "validation.kind=null", "logger=csv")
    paths = " ".join(read_scores(folder)["path"])
    assert (r"\xf6\xfc.png" in paths) == (place != "parts/normal")
    for word in ("check", "list"):
        status = main(["data", word, "data=folder", f"data.root={own.root}/parts", *own.elsewhere])
        assert status == 0
    (own.root / place / f"{strange}.png").write_bytes(b"broken")
    words = ["data", "check", "data=folder", f"data.root={own.root}/parts", *own.elsewhere]
    capsys.readouterr()
    assert main([*words, "--json"]) == 2
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["path"].endswith(r"\xf6\xfc.png")
    assert main(words) == 2
    capsys.readouterr().out.encode()


def test_a_defect_type_that_is_not_utf8(own):
    strange = os.fsdecode(b"\xf6")
    for part in ("defect", "masks"):
        folder = own.root / "elsewhere" / part / "square"
        folder.rename(folder.with_name(strange))
    assert set(read_scores(own(*own.elsewhere))["defect"]) == {"good", r"\xf6"}


@pytest.mark.parametrize(
    ("name", "named"), [(os.fsdecode(b"caf\xe9"), r"caf\xe9"), ("a${b}", "a${b}")]
)
def test_a_category_that_no_config_can_hold_is_refused(tmp_path, one_line_of, name, named):
    make_mvtec(tmp_path, categories=(name, "cloth"))
    with pytest.raises(UserError) as info:
        MVTecAD(tmp_path).categories()
    assert named in one_line_of(info)


@pytest.fixture
def one_line_of():
    def check(info):
        line = str(info.value)
        assert "\n" not in line
        line.encode()
        return line

    return check


def test_names_of_maximum_length(own):
    square = own.root / "elsewhere/defect/square"
    masks = own.root / "elsewhere/masks/square"
    for number, letter in enumerate("ab"):
        name = "ü" * 120 + letter  # 241 bytes, and alike up to the last
        (square / f"{number:03}.png").rename(square / f"{name}.png")
        (masks / f"{number:03}_mask.png").rename(masks / f"{name}.png")
    folder = own(*own.elsewhere, "report.heatmaps=20")
    drawn = list((folder / "heatmaps").glob("*.png"))
    assert len(drawn) == len(read_scores(folder))
    assert max(len(os.fsencode(path.name)) for path in drawn) <= 255


class TestWarnings:
    def test_findings_of_data_check_are_logged_before_the_training(self, run, caplog):
        truth = run.data / "ground_truth/square"
        for number, value in ((0, 0), (1, 0), (2, 255)):
            Image.new("L", (64, 64), value).save(truth / f"{number:03}_mask.png")
        exchange(run.data / "test/loose.png")
        shutil.copy(run.data / "train/good/002.png", run.data / "test/good/900.png")
        shutil.copy(run.data / "test/good/001.png", run.data / "test/square/900.png")
        (run.data / "train/good/x.heic").write_bytes(b"?")
        (truth / "900_mask.png").write_bytes((truth / "003_mask.png").read_bytes())
        run("run", "trainer.max_epochs=1")
        told = warnings(caplog)
        for named in ("000_mask.png", "002_mask.png", f"{run.data}/test ", "900.png", ".heic (1)"):
            assert len([text for text in told if named in text]) >= 1, named
        assert [text for text in told if "2 of 5 masks" in text]
        assert all("\n" not in text for text in told)

    def test_inverted_and_rotated_masks_get_a_warning(self, run, caplog):
        truth = run.data / "ground_truth/square"
        inverted = Image.new("L", (64, 64), 255)
        inverted.paste(0, (20, 20, 40, 40))
        inverted.save(truth / "000_mask.png")
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = 3
        with Image.open(truth / "001_mask.png") as mask:
            mask.load()
        mask.save(truth / "001_mask.png", exif=turned.tobytes())
        run("run", "trainer.max_epochs=1")
        told = [text for text in warnings(caplog) if "masks" in text]
        assert [sum(f"00{i}_mask.png" in text for text in told) for i in range(4)] == [1, 1, 0, 0]
