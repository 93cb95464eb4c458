"""A run again from its record alone, in another process; and that no secret is in what it left."""

import json
import shutil

import pytest
from small_data import make_mvtec

KEY = "0123456789abcdef0123456789abcdef01234567"
TYPED = "typed-and-not-to-be-kept"
WORDS = ["data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "data.num_workers=0"]
WORDS += ["trainer=cpu", "trainer.max_epochs=1", "report.heatmaps=1", "report.gallery=2", "seed=3"]
WORDS += [f"+service.api_key={TYPED}", "+service.note=${oc.env:WANDB_API_KEY}"]


@pytest.fixture(scope="module")
def done(forked, tmp_path_factory):
    """A multirun of one job with W&B offline, told two secrets; its folder and its data."""
    place = tmp_path_factory.mktemp("repeat")
    make_mvtec(place / "data", ("cloth",))
    env = {"MVTEC_ROOT": str(place / "data"), "WANDB_API_KEY": KEY}
    ended = forked("train", "-m", *WORDS, "sweep=s", cwd=place, env=env)
    assert ended.status == 0, ended.err
    (record,) = place.glob("multirun/s/*/*/result.json")
    return place, record


@pytest.fixture
def repeat(forked, done, tmp_path):
    """Run ``train --from`` with the record and more words."""

    def start(record, *words, root=done[0] / "data"):
        words = ["--from", record, "hydra.run.dir=again", "logger=none", "report.gallery=0", *words]
        return forked("train", *words, cwd=tmp_path, env={"MVTEC_ROOT": str(root)})

    start.folder = tmp_path / "again"
    return start


def test_no_secret_is_in_anything_that_is_left(done):
    place, record = done
    files = [path for path in place.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert names >= {"result.json", "last.ckpt", "report.html", "sweep.json", "multirun.yaml"}
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content and TYPED.encode() not in content, path
    assert json.loads(record.read_text())["config"]["service"] == {"api_key": "***", "note": "***"}


def test_the_same_metrics_to_the_bit_in_another_process(done, repeat):
    _, record = done
    refused = repeat(record, "service.note=none")
    assert refused.status == 2 and "service.api_key: the record does not tell it" in refused.err
    said = ["service.api_key=another", "service.note=none"]
    ended = repeat(record, *said)
    assert ended.status == 0, ended.err
    assert f"The same metrics as {record}, to the bit" in ended.out
    left, there = (json.loads(p.read_text()) for p in (repeat.folder / "result.json", record))
    assert there["choices"]["model/masking"] == "random"
    assert left["choices"] == there["choices"] | {"logger": "none"}
    assert left["metrics"] == there["metrics"] and left["loss_curve"] == there["loss_curve"]
    assert left["config_digest"] != there["config_digest"]  # the note is another
    assert left["provenance"]["command"].startswith("anomalib-rd train --from ")
    assert (repeat.folder / "scores.csv").read_bytes() == (
        record.parent / "scores.csv"
    ).read_bytes()
    kept = json.loads((repeat.folder / "repeat.json").read_text())
    assert kept["record"] == str(record) and kept["said"] == [] and kept["metrics"] == {}
    assert "service.api_key=***" in kept["overrides"] and "report.gallery=0" in kept["overrides"]


def test_other_images_software_and_metrics_are_said(done, repeat, tmp_path):
    place, record = done
    shutil.copytree(place / "data", tmp_path / "other")
    training = tmp_path / "other/cloth/train/good"
    (training / "001.png").replace(training / "000.png")
    changed = json.loads(record.read_text())
    changed["provenance"]["software"]["anomalib-rd"] = "0.0.9"
    changed["config_as_written"].pop("service")
    (tmp_path / "sent.json").write_text(json.dumps(changed))
    ended = repeat(tmp_path / "sent.json", "model=untrained", f"data.root={tmp_path / 'other'}")
    assert ended.status == 0, ended.err
    kept = json.loads((repeat.folder / "repeat.json").read_text())
    version, images = kept["said"]
    assert version.startswith("anomalib-rd 0.0.9 there, ") and version in ended.out
    assert "are not those of the record" in images and images in ended.out
    assert "pixel_auroc" in kept["metrics"] and "pixel_auroc: " in ended.out
    assert "model=untrained" in kept["overrides"]
