"""A sweep's summary run, read back from W&B's own file."""

import pytest
from fake_runs import fake_run
from made_sweep import RD4AD, WANDB, make_sweep, table
from wandb_file import read_runs

from anomalib_rd.reports.report import report
from anomalib_rd.tracking import keys
from anomalib_rd.tracking.sweep_summary import log_sweep
from anomalib_rd.tracking.wandb_runs import WANDB_ID


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("multirun") / "s")


@pytest.fixture(scope="module")
def stored(folder):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DIR", "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_DATA_DIR", str(folder / "staging"))
        log_sweep(report([folder]), folder)
    (run,) = read_runs(folder)
    return run


def test_summary_run_belongs_to_the_sweep(stored, folder):
    assert (stored.project, stored.group, stored.job_type) == ("theirs", "study", "summary")
    assert stored.name == "s summary" and stored.exit_code == 0
    assert stored.id == (folder / WANDB_ID).read_text().strip()
    assert stored.config["sweep"] == "s" and stored.config["seeds"] == [0, 1]


def test_means_table(stored):
    rows = table(stored, keys.MEANS)
    assert len(rows) == 2 * 5 * 8  # variants, two categories and three means, metrics
    (row,) = [
        row
        for row in rows
        if (row["variant"], row["category"], row["metric"])
        == ("rd4ad resnet18 ratio=0.3", "carpet", "image_auroc")
    ]
    assert row["mean"] == pytest.approx(0.925) and row["std"] == pytest.approx(0.00707, abs=1e-5)
    assert (row["data"], row["group"], row["n_seeds"]) == ("mvtec", "texture", 2)


def test_categories_table_is_in_percent(stored):
    rows = table(stored, keys.CATEGORIES)
    assert [row["category"] for row in rows] == [
        "carpet",
        "cable",
        "mean textures",
        "mean objects",
        "mean all",
    ]
    assert list(rows[0])[2:5] == [f"rd4ad resnet18 ratio=0.0 {m}" for m in keys.HEADLINE]
    assert rows[0]["rd4ad resnet18 ratio=0.0 image_auroc"] == pytest.approx(90.5)
    assert rows[1]["rd4ad resnet18 ratio=0.3 image_auroc"] == pytest.approx(92.5)
    assert rows[1]["rd4ad resnet18 ratio=0.3 aupro"] is None


def test_bar_charts(stored):
    rows = table(stored, "sweep/image_auroc_table")
    assert [row["bar"] for row in rows[:2]] == [
        "cable | rd4ad resnet18 ratio=0.0",
        "cable | rd4ad resnet18 ratio=0.3",
    ]
    assert rows[0]["percent"] == pytest.approx(90.5) and len(rows) == 10
    assert not [row for row in table(stored, "sweep/aupro_table") if "cable" in row["bar"]]
    chart = stored.config["_wandb"]["visualize"]["sweep/image_auroc"]["panel_config"]
    assert chart["fieldSettings"] == {"label": "bar", "value": "percent"}


def test_differences_and_sheet_of_heatmaps(stored):
    rows = {row["metric"]: row for row in table(stored, keys.DIFFERENCES)}
    assert rows["image_auroc"]["difference"] == pytest.approx(0.02)
    assert rows["image_auroc"]["baseline"] == "rd4ad resnet18 ratio=0.0"
    (row,) = [row for row in stored.history if keys.HEATMAPS in row]
    assert (stored.files / row[keys.HEATMAPS]["path"]).is_file()


def test_summary_values(stored):
    assert stored.summary["mean/image_auroc/rd4ad_resnet18_ratio_0_3"] == pytest.approx(0.925)
    assert stored.summary["mean/aupro/rd4ad_resnet18_ratio_0_0"] == pytest.approx(0.93)
    assert (stored.summary["runs/done"], stored.summary["runs/failed"]) == (8, 1)


def test_one_variant_has_plain_names(tmp_path):
    fake_run(tmp_path / "s/a", "carpet", config=RD4AD | {"logger": WANDB})
    log_sweep(report([tmp_path / "s"]), tmp_path / "s")
    (run,) = read_runs(tmp_path / "s")
    assert run.summary["mean/image_auroc"] == pytest.approx(0.98)
    assert table(run, "sweep/image_auroc_table")[0]["bar"] == "carpet"
    assert not any(keys.DIFFERENCES in row or keys.HEATMAPS in row for row in run.history)
