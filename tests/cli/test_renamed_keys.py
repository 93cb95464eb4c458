"""Keys and choices of older versions are refused in one line that names their replacement."""

import json

import pytest
from omegaconf import OmegaConf

from anomalib_rd.cli import main
from anomalib_rd.cli.config import compose_config, is_group, register_resolvers
from anomalib_rd.cli.override_checks import check_overrides
from anomalib_rd.cli.overrides import RENAMED, register_points, require_current_config
from anomalib_rd.errors import UserError

KEYS = [old for old in RENAMED if "/" not in old]


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_override_names_the_new_one(old, capsys):
    words = [old if "=" in old else f"{old}=1"]
    for arguments in (
        ["train", *words],
        ["train", "-m", *words],
        ["study", "plan", "mask", *words],
    ):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert old in line and line.endswith(RENAMED[old])


@pytest.mark.parametrize("old", RENAMED)
def test_the_new_one_exists(old):
    register_resolvers()
    for word in RENAMED[old].split():
        key, _, value = word.partition("=")
        if key == "point":
            register_points(["study=mask", "point=none"])
        elif not is_group(key):
            config = OmegaConf.to_container(compose_config([]))
            for name in key.split("."):
                config = config[name]
        if value:
            check_overrides([word])


@pytest.mark.parametrize(
    "old", [old for old in KEYS if not old.startswith(("threshold", "ablation"))]
)
def test_a_config_with_an_old_key_is_refused(old):
    key, _, choice = old.partition("=")
    config = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={choice or 0}"]))
    with pytest.raises(UserError) as refused:
        require_current_config("a record", config)
    assert key.split(".")[0] in str(refused.value) and "a record" in str(refused.value)


def test_the_config_of_today_is_accepted():
    register_resolvers()
    require_current_config("today", OmegaConf.to_container(compose_config([])))


def test_an_old_record_is_refused(tmp_path, capsys):
    register_resolvers()
    config = OmegaConf.to_container(compose_config([]))
    del config["hydra"]
    config["data"]["val"] = None
    record = {"config": config, "config_as_written": config, "seed": 0, "schema_version": 1}
    record |= {"data": dict.fromkeys(("name", "category", "group"), "x"), "metrics": {}}
    record |= {"model": {"name": "x", "teacher": "x"}, "protocol": {"headline": "x", "epochs": 1}}
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert main(["train", "--from", str(tmp_path / "result.json")]) == 2
    assert "validation.kind" in capsys.readouterr().err


def test_an_old_key_in_a_config_file_is_refused(tmp_path, capsys, mvtec_root):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/own.yaml").write_text("# @package _global_\ngallery: 20\n")
    words = ["--config-dir", str(tmp_path), "experiment=own", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main(["train", *words, "data=mvtec", f"data.root={mvtec_root}", "logger=none"]) == 2
    assert "report.gallery" in capsys.readouterr().err
