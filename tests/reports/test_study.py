import json

import pandas as pd
import pytest
from fake_runs import METRICS, fake_run
from matplotlib.image import imread

from anomalib_rd.cli import run_command
from anomalib_rd.errors import UserError
from anomalib_rd.reports.study import record_study
from anomalib_rd.results.record import write_failure
from anomalib_rd.results.sweeps import add_jobs

SYNTHETIC = {"protocol": {"headline": "last epoch", "epochs": 5, "image_size": [256, 256]}}
SYNTHETIC["protocol"]["validation"] = {"kind": "synthetic", "images": {"good": 20}, "share": 0.2}
MACHINE = {"cpu": "Some CPU", "cores": 2, "accelerator": "Some GPU"}
FACTS = {"hardware": MACHINE, "software": {"torch": "2.15"}}
FACTS["git"] = {"commit": "abcdef0123456789" * 2, "dirty": False}


def variants(folder, ratios=(0.1, 0.3, 0.5), seeds=(0, 1), categories=("bottle", "pill")):
    """The higher the ratio, the better the test; the validation thinks so too, but for pill."""
    for ratio in ratios:
        for category in categories:
            for seed in seeds:
                seen = 1 - ratio if category == "pill" else ratio
                fake_run(
                    folder / f"{category}/r{ratio}-s{seed}",
                    category,
                    seed,
                    metrics={"aupro": 0.8 + ratio / 10 + seed / 1000},
                    config={"model.masking.ratio": ratio},
                    validation={**METRICS, "aupro": 0.5 + seen / 10},
                    provenance=FACTS,
                    **SYNTHETIC,
                )
    return folder


def rows(text, title):
    """The cells of a table in Markdown, by its title."""
    part = text.split(f"### {title}")[1].split("###")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def test_results_have_one_row_for_each_run(tmp_path):
    sweep = variants(tmp_path / "sweep")
    record_study(sweep, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/results.csv")
    assert len(table) == 12 and table["run"].is_unique
    row = table.set_index("run").loc["pill/r0.3-s1"]
    assert (row["category"], row["seed"], row["epochs"], row["train_s"]) == ("pill", 1, 5, 10)
    assert (row["aupro"], row["val/aupro"]) == (pytest.approx(0.831), pytest.approx(0.57))
    assert row["variant"] == "rd4ad resnet18 ratio=0.3" and row["train_images_per_s"] == 104.5
    assert str(tmp_path) not in (tmp_path / "out/results.csv").read_text()


def test_summary_has_differences_and_how_validation_ranks(tmp_path):
    sweep = variants(tmp_path / "sweep")
    record_study(sweep, tmp_path / "out")
    text = (tmp_path / "out/summary.md").read_text()
    compared = rows(text, "Differences to ratio=0.1 on mvtec")
    (best,) = [row for row in compared if "ratio=0.5" in row[0] and row[1].startswith("AUPRO")]
    assert best[2] == "+4.00" and best[5].startswith("4")
    agreement = rows(text, "Does the validation rank")
    found = {tuple(row[:2]): row[2:] for row in agreement}
    assert found["bottle", "AUPRO FPR≤0.3"][0] == "+1.00"
    assert found["pill", "AUPRO FPR≤0.3"] == ["-1.00", "0.333", "3", "2"]
    assert found["pill", "image AUROC"][0].startswith("–")


def test_summary_says_where_the_numbers_come_from(tmp_path):
    sweep = variants(tmp_path / "sweep")
    words = "anomalib-rd train -m study=mask model.teacher.weights=/somewhere/of/mine/net.pth"
    add_jobs(sweep, words, {})
    write_failure(sweep / "pill/other", ValueError("no room"))
    record_study(sweep, tmp_path / "out")
    text = (tmp_path / "out/summary.md").read_text()
    for fact in ("- Runs: 12;", "- Budget: 5 epochs, 256x256 pixels, seeds 0; 1", "resnet18"):
        assert fact in text
    for fact in ("synthetic, 20% of", "Some GPU, 2 cores of Some CPU", "torch 2.15", "abcdef01"):
        assert fact in text
    assert "study=mask model.teacher.weights=.../net.pth`" in text and "/somewhere" not in text
    assert "Failed runs: 1" in text and "pill/other: ValueError: no room" in text


def test_the_figure_is_of_the_differences(tmp_path):
    files = record_study(variants(tmp_path / "sweep"), tmp_path / "out")
    names = ["results.csv", "summary.md", "comparisons.csv", "figure.png"]
    assert [path.name for path in files] == names
    assert imread(files[-1]).std() > 0.01


def test_one_variant_is_judged_by_its_spread(tmp_path):
    sweep = variants(tmp_path / "sweep", ratios=(0.3,), seeds=(0, 1, 2))
    record_study(sweep, tmp_path / "out")
    text = (tmp_path / "out/summary.md").read_text()
    (aupro,) = [row for row in rows(text, "Noise of the seeds") if "AUPRO" in row[0]]
    # Seeds are 0.1 points apart; two samples of five with this spread: 0.1 * 2.02.
    assert aupro[1] == "0.10" and aupro[2] == "0.05 to 0.63" and aupro[5] == "0.20"
    assert "Does the validation rank" not in text


def test_two_variants_have_no_rank_correlation(tmp_path):
    record_study(variants(tmp_path / "sweep", ratios=(0.1, 0.5), seeds=(0,)), tmp_path / "out")
    text = (tmp_path / "out/summary.md").read_text()
    assert "fewer than 3 variants have both: no rank correlation" in text


def curved(folder, epochs, points, seed=0, scheduler=None, model="rd4ad"):
    fake_run(
        folder / f"{model}-{epochs}-{seed}-{scheduler}",
        seed=seed,
        metrics={"aupro": 0.9},
        config={"model.name": model, "trainer.max_epochs": epochs, "scheduler": scheduler or {}},
        test_curve=[{"epoch": at, **METRICS, "aupro": aupro} for at, aupro in points.items()],
    )


def test_the_test_curve_gives_every_budget(tmp_path):
    sweep = tmp_path / "sweep"
    for seed in (0, 1):
        curved(sweep, 1, {}, seed)
        curved(sweep, 200, {5: 0.91, 15: 0.99, 50: 0.95, 200: 0.9}, seed)
    files = record_study(sweep, tmp_path / "out")
    text = (tmp_path / "out/summary.md").read_text()
    compared = rows(text, "Differences to epochs=200 on mvtec")
    aupro = {row[0].split("=")[-1]: row[2] for row in compared if row[1].startswith("AUPRO")}
    assert aupro == {"1": "+0.00", "5": "+1.00", "50": "+5.00"}  # 15 is drawn alone
    assert files[-1].name == "figure.png" and imread(files[-1]).std() > 0.01


def test_methods_are_compared_after_as_many_epochs(tmp_path):
    for seed in (0, 1):
        curved(tmp_path / "sweep", 200, {5: 0.9, 50: 0.9}, seed)
        curved(tmp_path / "sweep", 200, {5: 0.7 + seed / 10, 50: 0.91}, seed, model="fmg_rd")
    record_study(tmp_path / "sweep", tmp_path / "out")
    text = (tmp_path / "out/summary.md").read_text()
    found = rows(text, "Differences to rd4ad resnet18 at equal budget")
    assert [(row[0], row[1]) for row in found] == [
        ("fmg_rd resnet18", n) for n in ("5", "50", "200")
    ]
    assert found[0][-1].startswith("-15.00 (-20.00 to -10.00)") and found[1][-1].startswith(
        "+1.00 ("
    )


def test_a_schedule_makes_a_long_runs_points_no_budgets(tmp_path):
    sweep = tmp_path / "sweep"
    for epochs in (1, 200):
        curved(sweep, epochs, {epochs: 0.9}, scheduler={"_target_": "torch.CosineAnnealingLR"})
    record_study(sweep, tmp_path / "out")
    assert " epochs=" not in (tmp_path / "out/summary.md").read_text().replace("max_epochs", "")


def test_two_data_sets_are_two_studies(tmp_path):
    fake_run(tmp_path / "a")
    fake_run(tmp_path / "b", data="visa")
    with pytest.raises(UserError, match="runs on mvtec, visa; a study has one data"):
        record_study(tmp_path, tmp_path / "out")


def test_the_command_writes_beside_the_runs_or_where_it_is_told(tmp_path, capsys):
    sweep = variants(tmp_path / "sweep", seeds=(0,))
    assert run_command(["study", "record", str(sweep)]) == 0
    assert (
        run_command(
            ["study", "record", str(sweep), "--out", str(tmp_path / "o"), "--baseline=ratio=0.5"]
        )
        == 0
    )
    assert (sweep / "results.csv").read_bytes() == (tmp_path / "o/results.csv").read_bytes()
    assert "Differences to ratio=0.5" in (tmp_path / "o/summary.md").read_text()
    assert f"Written to {tmp_path / 'o'}: results.csv, summary.md" in capsys.readouterr().out
    # What was written is no run.
    assert json.loads((sweep / "pill/r0.1-s0/result.json").read_text())["seed"] == 0
