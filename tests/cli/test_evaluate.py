"""``anomalib-rd evaluate``: exactly the recorded numbers, other data, no overwriting."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from small_data import make_mvtec

from anomalib_rd.cli import main
from anomalib_rd.results.files import read_json
from anomalib_rd.results.record import find_runs, read_curves, read_record, read_scores


def contents(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and "evaluations" not in path.parts
    }


def evaluate(run, *words):
    return main(["evaluate", str(run), "--device", "cpu", "--name", "again", *words])


def evaluation(run):
    return read_json(run / "evaluations/again/evaluation.json")


def test_exactly_the_recorded_numbers_and_the_run_unchanged(run_copy):
    before = contents(run_copy)
    assert evaluate(run_copy) == 0
    assert contents(run_copy) == before
    folder, record = run_copy / "evaluations/again", read_record(run_copy)
    made = evaluation(run_copy)
    assert made["metrics"] == record["metrics"]
    assert read_scores(folder).equals(read_scores(run_copy))
    curves, recorded = read_curves(folder), read_curves(run_copy)
    assert all(np.array_equal(curves[name], recorded[name]) for name in recorded)
    assert made["evaluation"]["same_data"] and made["evaluation"]["equal"]
    assert made["checkpoint"]["sha256"] == record["checkpoint"]["sha256"]
    checkpoint = (folder / made["checkpoint"]["path"]).resolve()
    assert checkpoint == (run_copy / "checkpoints/last.ckpt").resolve()
    assert made["protocol"]["epochs"] == 2 and "loss_curve" not in made
    pictures = {path.name for path in (folder / "heatmaps").iterdir()}
    assert pictures == {path.name for path in (run_copy / "heatmaps").iterdir()}


def test_what_the_threshold_makes_of_the_test_images(run_copy):
    evaluate(run_copy, "report.heatmaps=0", "report.gallery=0")
    scores, made = read_scores(run_copy), evaluation(run_copy)["at_threshold"]
    flagged = scores["score"] >= read_record(run_copy)["threshold"]["image"]
    assert made["false_positives"] == sum(flagged & (scores["label"] == 0))
    assert made["true_positives"] == sum(flagged & (scores["label"] == 1))
    assert (made["normals"], made["defects"]) == (3, 4)


def test_another_false_positive_rate_is_taken_from_the_kept_scores(run_copy, capsys):
    kept = read_record(run_copy)["threshold"]
    assert len(kept["normal_scores"]) == 12
    words = ("threshold.false_positive_rate=0.25", "report.heatmaps=0", "report.gallery=0")
    assert evaluate(run_copy, *words) == 0
    made, scores = evaluation(run_copy), read_scores(run_copy)
    # k = ceil(13 * 0.75) = 10: the tenth of the twelve scores is not anomalous, the next are.
    tenth = sorted(kept["normal_scores"])[9]
    assert made["at_threshold"]["threshold"] == np.nextafter(tenth, np.inf)
    assert made["at_threshold"]["false_positive_rate"] == pytest.approx(3 / 13)
    flagged = scores["score"] > tenth
    assert made["at_threshold"]["true_positives"] == sum(flagged & (scores["label"] == 1))
    assert made["config"]["threshold"]["false_positive_rate"] == 0.25
    assert made["evaluation"]["equal"] is True


def test_the_runs_own_image_size_may_be_repeated(run_copy):
    assert (
        evaluate(run_copy, "data.image_size=[64,64]", "report.heatmaps=0", "report.gallery=0") == 0
    )


def test_nothing_is_warned_of(run_copy, recwarn):
    assert evaluate(run_copy, "report.heatmaps=0", "report.gallery=0") == 0
    assert [str(one.message) for one in recwarn if "WeightAveraging" in str(one.message)] == []


def test_interruption_has_the_shells_status(run_copy, monkeypatch, capsys):
    from anomalib_rd.training.module import DistillationModule

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(DistillationModule, "test_step", interrupted)
    assert evaluate(run_copy) == 130
    assert "interrupted" in capsys.readouterr().err


def test_category_is_shown_as_it_is_called(data_root, run_copy, capsys):
    shutil.copytree(data_root / "cloth", run_copy / "p[left]")
    root = f"data.root={run_copy}"
    assert (
        evaluate(run_copy, root, "data.category='p[left]'", "report.heatmaps=0", "report.gallery=0")
        == 0
    )
    shown = capsys.readouterr().out
    (head,) = [line for line in shown.splitlines() if "metric, %" in line]
    assert head.split()[-1] == "p[left]"


def test_an_evaluation_is_no_run(run_copy):
    evaluate(run_copy, "report.heatmaps=0", "report.gallery=0")
    assert find_runs(run_copy.parent) == [run_copy]
    # Not even a record in a run that was cut off.
    (run_copy / "result.json").rename(run_copy / "evaluations/again/result.json")
    with pytest.raises(Exception, match="no complete run"):
        find_runs(run_copy.parent)


def test_changed_numbers_are_named(run_copy):
    record = json.loads((run_copy / "result.json").read_text())
    record["metrics"]["aupro"] += 1e-16 + 1e-3
    (run_copy / "result.json").write_text(json.dumps(record))
    assert evaluate(run_copy, "report.heatmaps=0", "report.gallery=0") == 0
    made = evaluation(run_copy)["evaluation"]
    assert made["equal"] is False and list(made["differing"]) == ["aupro"]


def test_changed_scores_are_noticed(run_copy):
    table = run_copy / "scores.csv"
    lines = table.read_text().splitlines()
    lines[1] = lines[1].rsplit(",", 1)[0] + ",0.5"
    table.write_text("\n".join(lines))
    assert evaluate(run_copy, "report.heatmaps=0", "report.gallery=0") == 0
    made = evaluation(run_copy)["evaluation"]
    assert made["equal"] is False and not made["differing"]


def test_other_category_root_and_data_set(run_copy, tmp_path, capsys):
    assert evaluate(run_copy, "data.category=cable") == 0
    made = evaluation(run_copy)
    assert made["data"]["category"] == "cable" and made["evaluation"]["equal"] is None
    assert made["evaluation"]["overrides"] == ["data.category=cable"]
    words = ("data.category=cloth,cable", "report.heatmaps=0", "report.gallery=0")
    assert evaluate(run_copy, "--name", "both", *words) == 0
    made = read_json(run_copy / "evaluations/both/evaluation.json")
    recorded = pytest.approx(read_record(run_copy)["metrics"], abs=1e-4)  # other batches
    assert made["categories"]["cloth"] == recorded and len(made["categories"]) == 2
    other = make_mvtec(tmp_path / "other", categories=("cloth",), bad=2)
    assert evaluate(run_copy, "--name", "root", f"data.root={other}") == 0
    made = read_json(run_copy / "evaluations/root/evaluation.json")
    assert made["data"]["test_images"] == {"good": 3, "square": 2}
    best = made["best_f1_threshold"]
    assert str(best) in capsys.readouterr().out
    scores = read_scores(run_copy / "evaluations/root")
    labels = scores["label"] == 1

    def f1(threshold):
        flagged = scores["score"] >= threshold
        return 2 * (flagged & labels).sum() / (flagged.sum() + labels.sum())

    assert (
        f1(best) == max(map(f1, scores["score"])) == pytest.approx(made["metrics"]["image_f1max"])
    )
    for kind in ("normal", "defect"):
        shutil.copytree(other / "cloth/train/good", tmp_path / "mine" / kind)
    words = ("data=folder", f"data.root={tmp_path / 'mine'}", "data.source.normal_test_share=0.5")
    assert evaluate(run_copy, "--name", "mine", *words) == 0
    made = read_json(run_copy / "evaluations/mine/evaluation.json")
    assert (made["data"]["name"], made["data"]["category"]) == ("folder", "mine")
    assert made["data"]["test_images"]["defect"] == 6
    assert made["config"]["data"]["image_size"] == [64, 64]
    assert "no ground-truth mask" in made["undefined"]["aupro"]


def test_validation_of_the_run_does_not_matter(make_run, tmp_path):
    folder = make_run(
        "validation.kind=synthetic", "threshold.kind=f1max", "report.heatmaps=0", "report.gallery=0"
    )
    assert evaluate(folder) == 0
    assert evaluation(folder)["evaluation"]["equal"]
    assert read_record(folder)["threshold"]["kind"] == "f1max"


def test_checkpoint_of_a_run_that_was_cut_off(run_copy):
    (run_copy / "result.json").unlink()
    path = run_copy / "checkpoints/last.ckpt"
    assert (
        main(
            ["evaluate", f"run={path}", "--device", "cpu", "report.heatmaps=0", "report.gallery=0"]
        )
        == 0
    )
    (folder,) = (run_copy / "evaluations").iterdir()
    assert read_json(folder / "evaluation.json")["evaluation"]["equal"] is None


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("seed=1",), "seed=1"),
        (("model.scoring.sigma=2",), "model.scoring.sigma"),
        (("data.rot=x",), "data.root"),
        (("data.root=/nowhere",), "/nowhere"),
        (("data.category=clth",), "cloth"),
        (("data.image_size=64",), "data.image_size=64"),
        (("data.image_size=[96,96]",), "data.image_size=[96,96]"),
        (("++data.image_size=[96,96]",), "data.image_size=[96,96]"),
        (("data=demo", "data.image_size=[96,96]"), "data.image_size=[96,96]"),
        (("data={image_size: [96,96]}",), "data={image_size: [96,96]}"),
        (("data.source=null",), "data.source=null"),
        (("validation.kind=synthetic",), "validation.kind"),
        (("data.train_batch_size=2",), "data.train_batch_size"),
        (("trainer.precision=bf16-mixed",), "trainer.precision"),
        (("threshold.kind=f1max",), "threshold.kind"),
        (("~data.root=x",), "~data.root=x"),
        (("report.heatmaps=-1",), "report.heatmaps=-1"),
        (("threshold.false_positive_rate=0.01",), "99 normal images"),
        (("threshold.false_positive_rate=2",), "2"),
        (("--name", ".."), "--name .."),
        (("nonsense",), "nonsense"),
        (("--name", "a/b"), "--name a/b"),
        (("--device", "cuda:77"), "cuda:77"),
        (("--colour",), "--colour"),
    ],
)
def test_user_errors_are_one_line_and_status_2(run, capsys, words, part):
    assert evaluate(run, *words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and part in told
    assert not (run / "evaluations").exists()


def test_no_evaluation_is_overwritten(run_copy, capsys):
    words = ("report.heatmaps=0", "report.gallery=0")
    assert (evaluate(run_copy, *words), evaluate(run_copy, *words)) == (0, 2)
    assert "evaluations/again" in capsys.readouterr().err


def test_damaged_checkpoint_is_one_line(run_copy, capsys):
    (run_copy / "checkpoints/last.ckpt").write_bytes(b"no")
    assert evaluate(run_copy) == 2
    assert "last.ckpt" in capsys.readouterr().err


def test_code_that_the_config_names_is_not_run(run_copy, tmp_path, capsys):
    path, trace = run_copy / "checkpoints/last.ckpt", tmp_path / "trace"
    kept = torch.load(path, weights_only=True)
    kept["config"]["optimizer"] = {"_target_": "os.mkdir", "path": str(trace)}
    torch.save(kept, path)
    (run_copy / "result.json").unlink()
    assert evaluate(run_copy) == 2
    assert "optimizer._target_=os.mkdir" in capsys.readouterr().err and not trace.exists()
