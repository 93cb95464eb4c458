"""``train --from``: a run from its record alone, in another process; no secret in its files."""

import json
import shutil

import pytest
from small_data import make_mvtec

KEY = "0123456789abcdef0123456789abcdef01234567"
TYPED = "typed-and-not-to-be-written"
WORDS = ["data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "data.num_workers=0"]
WORDS += ["trainer=cpu", "trainer.max_epochs=1", "report.heatmaps=1", "report.gallery=2", "seed=3"]
WORDS += [f"+service.api_key={TYPED}", "+service.note=${oc.env:WANDB_API_KEY}"]


@pytest.fixture(scope="module")
def done(forked, tmp_path_factory):
    """A multirun of one job with W&B offline, told two secrets; its folder and its data."""
    workdir = tmp_path_factory.mktemp("reproduce")
    make_mvtec(workdir / "data", ("cloth",))
    env = {"MVTEC_ROOT": str(workdir / "data"), "WANDB_API_KEY": KEY}
    ended = forked("train", "-m", *WORDS, "sweep=s", cwd=workdir, env=env)
    assert ended.status == 0, ended.err
    (record,) = workdir.glob("multirun/s/*/*/result.json")
    return workdir, record


@pytest.fixture
def reproduce(forked, done, tmp_path):
    """Run ``train --from`` with the record and more words."""

    def start(record, *words, root=done[0] / "data"):
        words = ["--from", record, "hydra.run.dir=again", "logger=none", "report.gallery=0", *words]
        return forked("train", *words, cwd=tmp_path, env={"MVTEC_ROOT": str(root)})

    start.folder = tmp_path / "again"
    return start


def test_no_secret_is_in_any_file(done):
    workdir, record = done
    files = [path for path in workdir.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert names >= {"result.json", "last.ckpt", "report.html", "sweep.json", "multirun.yaml"}
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content and TYPED.encode() not in content, path
    assert json.loads(record.read_text())["config"]["service"] == {"api_key": "***", "note": "***"}


def test_exactly_the_same_metrics_in_another_process(done, reproduce):
    _, record = done
    refused = reproduce(record, "service.note=none")
    assert refused.status == 2 and "service.api_key" in refused.err
    secrets = ["service.api_key=another", "service.note=none"]
    ended = reproduce(record, *secrets)
    assert ended.status == 0, ended.err
    new, recorded = (json.loads(p.read_text()) for p in (reproduce.folder / "result.json", record))
    assert recorded["choices"]["model/masking"] == "random"
    assert new["choices"] == recorded["choices"] | {"logger": "none"}
    assert new["metrics"] == recorded["metrics"] and new["loss_curve"] == recorded["loss_curve"]
    assert new["config_digest"] != recorded["config_digest"]  # the note is another
    assert new["provenance"]["command"].startswith("anomalib-rd train --from ")
    assert (reproduce.folder / "scores.csv").read_bytes() == (
        record.parent / "scores.csv"
    ).read_bytes()
    written = json.loads((reproduce.folder / "reproduction.json").read_text())
    assert (
        written["record"] == str(record)
        and written["differences"] == []
        and written["metrics"] == {}
    )
    assert (
        "service.api_key=***" in written["overrides"] and "report.gallery=0" in written["overrides"]
    )


def test_differences_of_images_software_and_metrics_are_reported(done, reproduce, tmp_path):
    workdir, record = done
    shutil.copytree(workdir / "data", tmp_path / "other")
    training = tmp_path / "other/cloth/train/good"
    (training / "001.png").replace(training / "000.png")
    changed = json.loads(record.read_text())
    changed["provenance"]["software"]["anomalib-rd"] = "0.0.9"
    changed["config_as_written"].pop("service")
    (tmp_path / "sent.json").write_text(json.dumps(changed))
    ended = reproduce(tmp_path / "sent.json", "model=untrained", f"data.root={tmp_path / 'other'}")
    assert ended.status == 0, ended.err
    written = json.loads((reproduce.folder / "reproduction.json").read_text())
    version, images = written["differences"]
    assert version.startswith("anomalib-rd 0.0.9 ") and version in ended.out
    assert str(tmp_path / "other") in images and images in ended.out
    assert "pixel_auroc" in written["metrics"] and "pixel_auroc: " in ended.out
    assert "model=untrained" in written["overrides"]
