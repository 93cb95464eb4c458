"""Pixel metrics if only some of the defect images have masks."""

import shutil

import pytest
import torch
from small_data import make_mvtec

from anomalib_rd.cli import main
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import read_json
from anomalib_rd.results.record import category_folder, read_record, read_scores
from anomalib_rd.training.evaluation import PredictionGatherer, evaluate_predictions
from anomalib_rd.training.train import train

QUICK = ("report.heatmaps=0", "report.gallery=0", "trainer.max_epochs=1", "model=untrained")
PIXELS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_5")


@pytest.fixture
def root(tmp_path):
    """4 images of a square with masks, 2 of a hole without, and one more square without."""
    root = make_mvtec(tmp_path / "mvtec", categories=("cloth", "cable"))
    for category in ("cloth", "cable"):
        test = root / category / "test"
        (test / "hole").mkdir()
        for i in range(2):
            shutil.copy(test / f"square/{i:03}.png", test / f"hole/{i:03}.png")
        shutil.copy(test / "square/000.png", test / "square/900.png")
    return root


@pytest.fixture
def run(compose_config, root, tmp_path):
    def start(name, *overrides):
        folder = tmp_path / name
        train(compose_config(*QUICK, f"data.root={root}", f"run_dir={folder}", *overrides))
        return folder

    return start


def pixels(record):
    return {name: record["metrics"][name] for name in PIXELS}


def test_undefined_by_default_with_one_reason(run):
    record = read_record(run("all"))
    assert all(value != value for value in pixels(record).values())
    assert record["protocol"]["pixels_judged"] is None
    assert set(record["undefined"]) == set(PIXELS)
    (reason,) = set(record["undefined"].values())
    assert "3 of 7" in reason and "square 1 of 5" in reason and "hole 2 of 2" in reason


@pytest.mark.parametrize("bins", ["null", "1048576"])
def test_masked_evaluates_only_images_with_masks(run, root, bins):
    words = (f"metrics.max_bins={bins}", "metrics.pixels_on=masked")
    record = read_record(run("some", *words))
    assert record["protocol"]["pixels_judged"] == {
        "hole": {"judged": 0, "of": 2},
        "square": {"judged": 4, "of": 5},
    }
    assert not set(record["undefined"]) & set(PIXELS)
    assert len(read_scores(run("some2", *words))) == 3 + 7
    shutil.rmtree(root / "cloth/test/hole")
    (root / "cloth/test/square/900.png").unlink()
    alone = read_record(run("alone", f"metrics.max_bins={bins}"))
    assert pixels(alone) == pytest.approx(pixels(record), abs=1e-12)


def test_masked_applies_to_each_category(run, root):
    shutil.rmtree(root / "cable/ground_truth")
    words = ("data.unified=true", "data.category=[cloth,cable]", "metrics.pixels_on=masked")
    folder = run("both", *words)
    cloth = read_record(category_folder(folder, "cloth"))
    cable = read_record(category_folder(folder, "cable"))
    assert all(value == value for value in pixels(cloth).values())
    assert all(value != value for value in pixels(cable).values())
    assert cloth["protocol"]["pixels_judged"]["square"] == {"judged": 4, "of": 5}
    assert cable["protocol"]["pixels_judged"]["square"] == {"judged": 0, "of": 5}
    assert "7 of 7" in cable["undefined"]["aupro"]


def test_evaluate_can_use_masked_images_later(run):
    folder = run("all", "model=fmg_rd")
    words = [
        "evaluate",
        str(folder),
        "--device",
        "cpu",
        "--name",
        "a",
        "report.gallery=0",
        "report.heatmaps=0",
    ]
    assert main([*words, "metrics.pixels_on=masked"]) == 0
    made = read_json(folder / "evaluations/a/evaluation.json")
    assert made["metrics"]["aupro"] is not None
    assert made["protocol"]["pixels_judged"]["hole"] == {"judged": 0, "of": 2}


def test_an_unknown_choice_is_refused(run):
    with pytest.raises(UserError, match=r"metrics\.pixels_on=some"):
        run("run", "metrics.pixels_on=some")


@pytest.mark.parametrize("bins", [None, 4096])
def test_the_result_does_not_depend_on_batches_or_their_order(bins):
    draw = torch.Generator().manual_seed(0)
    maps, masks = torch.rand(6, 8, 8, generator=draw), torch.rand(6, 8, 8, generator=draw) > 0.7
    labels, known = torch.tensor([0, 1, 1, 0, 1, 1]), [True, False, True, True, True, False]
    found = []
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 4, 2]):
        gatherer = PredictionGatherer(bins, None, known)
        for rows in (order[:1], order[1:4], order[4:]):
            batch = {"index": torch.tensor(rows), "label": labels[rows], "mask": masks[rows]}
            gatherer.update(batch, maps[rows], maps[rows].amax((1, 2)))
        ((_, own, streamed),) = gatherer.by_category(gatherer.predictions())
        assert len(own.scores) == 6
        found.append(evaluate_predictions(own, streamed, None, False).metrics)
    rows = [0, 2, 3, 4]
    gatherer = PredictionGatherer()
    batch = {"index": torch.tensor(rows), "label": labels[rows], "mask": masks[rows]}
    gatherer.update(batch, maps[rows], maps[rows].amax((1, 2)))
    ((_, own, _),) = gatherer.by_category(gatherer.predictions())
    alone = evaluate_predictions(own, None, None, False).metrics
    for name in PIXELS:
        assert found[0][name] == found[1][name] == pytest.approx(alone[name], abs=1e-9)
