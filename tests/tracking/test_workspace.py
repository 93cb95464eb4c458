"""The saved view, checked against what runs log; built and saved with wandb-workspaces."""

import json
import subprocess
import sys

import pytest
import yaml
from fake_runs import fake_run
from omegaconf import OmegaConf

from anomalib_rd.cli import run_command
from anomalib_rd.errors import UserError
from anomalib_rd.results.runs_table import METRICS
from anomalib_rd.tracking import keys
from anomalib_rd.tracking.wandb_workspace import CONFIG, define_workspace

DEFINED = define_workspace("view", "anomalib-rd", "team", ["bottle", "wood"])
PANELS = {section.name: section.panels for section in DEFINED.sections}


def all_keys(of=PANELS):
    return {
        key
        for panels in of.values()
        for panel in panels
        for key in (*panel.keys, *filter(None, [panel.group_by]))
    }


def test_every_metric_is_logged():
    stages = {"test", "val", "test_curve", "bottle", "wood", "sweep"}
    others = {keys.IMAGES, keys.EXAMPLES, keys.MAPS, keys.CATEGORIES, keys.DIFFERENCES}
    others |= {keys.HEATMAPS, "train/loss", "Group"}
    for key in all_keys() - others:
        if not key.startswith(CONFIG):
            stage, metric = key.split("/")
            assert stage in stages and metric in METRICS


@pytest.mark.parametrize("masking", ["random", "none"])
def test_every_config_key_exists(compose_config, masking):
    config = compose_config("model=fmg_rd", f"model/masking={masking}")
    shown = {key.removeprefix(CONFIG) for key in all_keys() if key.startswith(CONFIG)}
    only_masked = {"model.masking.ratio", "model.masking.strategy"} if masking == "none" else set()
    assert len(shown) > 5
    for key in shown - only_masked:
        assert OmegaConf.select(config, key) is not None, key


def test_bars_of_all_categories():
    shown = [panel.keys for panel in PANELS["Categories"]]
    assert shown == [(f"bottle/{m}", f"wood/{m}") for m in keys.HEADLINE]


def test_summary_runs_have_their_own_keys():
    sweeps = all_keys({"Sweeps": PANELS["Sweeps"]})
    others = all_keys({name: panels for name, panels in PANELS.items() if name != "Sweeps"})
    assert all(key.startswith("sweep/") for key in sweeps)
    assert not any(key.startswith(("sweep/", "mean/", "runs/")) for key in others)


def built():
    pytest.importorskip("wandb_workspaces")
    from anomalib_rd.tracking.wandb_workspace import build_view

    return build_view(DEFINED)._to_model()


def test_view_has_every_panel():
    spec = json.loads(built().spec.model_dump_json(by_alias=True, exclude_none=True))
    sections = spec["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == list(PANELS)
    assert [len(section["panels"]) for section in sections] == [len(p) for p in PANELS.values()]
    text = json.dumps(spec)
    for key in all_keys():
        assert key.removeprefix(CONFIG).partition(".")[0] in text


def test_grouping():
    section = built().spec.section
    (runset,) = section.run_sets
    assert [(key.section, key.name) for key in runset.grouping] == [
        ("run", "group"),
        ("run", "jobType"),
    ]
    panels = {
        panel.config.chart_title: panel.config
        for each in section.panel_bank_config.sections
        for panel in each.panels
        if hasattr(panel.config, "chart_title")
    }
    by_masking = panels["aupro by masking"]
    assert by_masking.group_by == "model.value.masking._target_"
    assert by_masking.metrics == ["test/aupro"] and by_masking.aggregate
    assert panels["aupro by sweep"].group_by == "group"
    axes = [column.accessor for column in panels["settings and image AUROC"].columns]
    assert axes[0] == "config:model.value.masking.ratio" and axes[-1] == "summary:test/image_auroc"
    assert panels["train/loss"].x_axis == "epoch"


def test_workspace_is_saved(stub, capsys):
    pytest.importorskip("wandb_workspaces")
    assert run_command(["workspace", "--entity", "team", "--project", "p", "--name", "mine"]) == 0
    (sent,) = [body["variables"] for name, body in stub.bodies if name == "UpsertView2"]
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("team", "p", "mine")
    assert "zipper/aupro" in sent["spec"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("/team/p?nw=abc")


def test_default_entity(stub):
    pytest.importorskip("wandb_workspaces")
    assert run_command(["workspace"]) == 0
    (sent,) = [body["variables"] for name, body in stub.bodies if name == "UpsertView2"]
    assert sent["entityName"] == "me"


def test_silent_server_is_one_line(stub, monkeypatch):
    pytest.importorskip("wandb_workspaces")
    monkeypatch.setattr("wandb.Api._HTTP_TIMEOUT", 1)
    stub.hangs.set()
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1") as error:
        run_command(["workspace", "--entity", "team"])
    assert len(str(error.value).splitlines()) == 1


def test_missing_login():
    pytest.importorskip("wandb_workspaces")
    with pytest.raises(UserError, match="wandb login"):
        run_command(["workspace", "--entity", "team"])


def test_missing_extra(monkeypatch):
    monkeypatch.setattr("anomalib_rd.cli.workspace.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'pip install "anomalib-rd\[workspace\]"'):
        run_command(["workspace"])


def test_categories_and_project_are_read_from_runs(tmp_path, capsys):
    logger = {"wandb": {"_target_": keys.WANDB_LOGGER, "project": "theirs", "entity": "team"}}
    for category in ("wood", "cable"):
        fake_run(tmp_path / category, category, config={"logger": logger})
    assert run_command(["workspace", str(tmp_path), "--dry-run"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["project"], shown["entity"]) == ("theirs", "team")
    bars = shown["sections"][0]["panels"][0]
    assert bars["keys"] == ["cable/image_auroc", "wood/image_auroc"]
    assert (
        run_command(
            ["workspace", str(tmp_path), "--dry-run", "--project", "p", "--categories", "a"]
        )
        == 0
    )
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["project"] == "p" and shown["sections"][0]["panels"][0]["keys"] == [
        "a/image_auroc"
    ]


LIGHT = """
import sys
from anomalib_rd.cli import run_command
run_command(["workspace", "--dry-run"])
print(sorted({"wandb", "wandb_workspaces", "torch", "pandas"} & set(sys.modules)))
"""


def test_definition_without_wandb_and_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *text, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert len(yaml.safe_load("\n".join(text))["sections"][0]["panels"][0]["keys"]) == 15
