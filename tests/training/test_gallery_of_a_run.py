"""The gallery of a tiny run."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from anomalib_rd.errors import UserError
from anomalib_rd.results.gallery import Gallery
from anomalib_rd.results.record import read_scores
from anomalib_rd.training.artifacts import save_gallery
from anomalib_rd.training.module import DistillationModule
from anomalib_rd.training.train import train


@pytest.fixture
def run(compose_config, tmp_path):
    def start(folder, *overrides):
        path = tmp_path / folder
        train(
            compose_config("model=untrained", "report.gallery=all", *overrides, f"run_dir={path}")
        )
        return path

    return start


def pixels(content):
    return np.asarray(Image.open(BytesIO(content))).astype(int)


def test_the_gallery_holds_every_test_image_with_exact_and_streamed_metrics(run, mvtec_root):
    exact, streamed = run("exact"), run("streamed", "metrics.max_bins=1000")
    with Gallery(exact) as kept, Gallery(streamed) as again:
        assert kept.paths == again.paths == list(read_scores(exact)["path"])
        assert kept.size == kept.map_size == again.map_size == (64, 64)
        assert 0 < kept.threshold < kept.high and kept.low < kept.high
        assert (again.low, again.high) == pytest.approx((kept.low, kept.high), rel=1e-4)
        brightest = 0
        for path in kept.paths:
            source = mvtec_root / path
            assert abs(pixels(kept.image(path)) - pixels(source.read_bytes())).mean() < 4
            assert abs(pixels(kept.map(path)) - pixels(again.map(path))).max() <= 2
            brightest = max(brightest, pixels(kept.map(path)).max())
            truth = mvtec_root / "cloth/ground_truth/square" / f"{source.stem}_mask.png"
            expected = pixels(truth.read_bytes()) > 0 if "square" in path else np.zeros((64, 64))
            assert np.array_equal(kept.mask(path), expected)
        assert brightest > 250


def test_the_gallery_holds_the_requested_number_of_images(run, mvtec_copy):
    (mvtec_copy / "cloth/ground_truth/square/001_mask.png").unlink()
    few = run("few", "report.gallery=3", f"data.root={mvtec_copy}")
    with Gallery(few) as gallery:
        assert len(gallery.paths) == 3 and gallery.threshold is None
        assert {path.split("/")[-2] for path in gallery.paths} == {"good", "square"}
        truths = {path: gallery.mask(path) for path in gallery.paths}
        assert [p for p, mask in truths.items() if mask is None] == ["cloth/test/square/001.png"]


def test_there_is_no_gallery_without_images(tmp_path):
    scores = pd.DataFrame({"path": ["a", "b"], "defect": ["good", "crack"]})
    save_gallery(SimpleNamespace(config={"report": {"gallery": 0}}), tmp_path, None, scores)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["-1", "some", "1.5", "true", "null"])
def test_a_gallery_that_is_no_number_is_refused(compose_config, value):
    with pytest.raises(UserError, match="gallery="):
        train(compose_config(f"report.gallery={value}"))


def test_streamed_maps_are_computed_again_in_the_precision_of_the_test(run, monkeypatch):
    """For the heatmaps and for the gallery."""
    score = DistillationModule.score
    contexts = []

    def watched(module, images):
        contexts.append((module.training, torch.is_autocast_enabled("cpu")))
        return score(module, images)

    monkeypatch.setattr(DistillationModule, "score", watched)
    streamed = ("metrics.max_bins=1000", "threshold.kind=none", "trainer.precision=bf16-mixed")
    for drawn, gallery in ((2, 0), (0, 2)):
        contexts.clear()
        run(f"{drawn}", *streamed, f"report.heatmaps={drawn}", f"report.gallery={gallery}")
        assert len(contexts) > 1 and set(contexts) == {(False, True)}
