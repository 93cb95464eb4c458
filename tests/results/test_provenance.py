import json
import subprocess

import pytest

from anomalib_rd.results import provenance


def run_git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_provenance_is_json():
    found = json.loads(json.dumps(provenance.collect_provenance("Some GPU")))
    assert found["software"]["numpy"]
    assert found["software"]["python"].startswith("3.")
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["cpu"]
    assert found["hardware"]["memory_gib"] > 0
    assert found["hardware"]["accelerator"] == "Some GPU"


def test_missing_packages_are_omitted(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "surely-not-installed"))
    assert set(provenance.software_versions()) == {"python", "system", "numpy"}


def test_git_commit_and_dirty(tmp_path):
    assert provenance.git_state(tmp_path) is None
    run_git(tmp_path, "init")
    assert provenance.git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("a")
    run_git(tmp_path, "add", "file")
    run_git(tmp_path, "commit", "-m", "first")
    clean = provenance.git_state(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "file").write_text("b")
    assert provenance.git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_git_never_fails(tmp_path, monkeypatch):
    assert provenance.git_state(tmp_path / "missing") is None
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state(tmp_path) is None


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("logger.api_key=hunter2", "logger.api_key=***"),
        ("+wandb.token=hunter2,hunter2b", "'+wandb.token=***'"),
        ("--password=hunter2", "'--password=***'"),
        ("logger={api_key: hunter2, project: p}", "'logger={api_key: ***, project: p}'"),
        ("proxy=https://me:hunter2@host/x", "'proxy=https://***@host/x'"),
        ("AWS_SECRET=hunter2", "'AWS_SECRET=***'"),
    ],
)
def test_secrets_are_masked(argument, shown):
    command = provenance.command_line(["/usr/bin/anomalib-rd", "train", argument, "seed=1"])
    assert "hunter2" not in command
    assert command.startswith("anomalib-rd train ")
    assert command.endswith(" seed=1")
    assert shown.strip("'") in command


def test_the_value_after_a_secret_option_is_masked():
    command = provenance.command_line(["prog", "--api-key", "hunter2", "data=mvtec"])
    assert command == "prog --api-key '***' data=mvtec"


def test_other_arguments_are_unchanged():
    arguments = ["data.category=all", "seed=0,1,2", "model=rd4ad", "-m", "data.root=a b"]
    command = provenance.command_line(["/x/anomalib_rd/__main__.py", *arguments])
    assert command == "python -m anomalib_rd data.category=all seed=0,1,2 model=rd4ad -m " + (
        "'data.root=a b'"
    )


def test_credentials_of_the_environment_are_masked(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("SECRET_FILE", "/home/me/keys")
    config = {
        "note": "it is 0123456789abcdef",
        "list": ["0123456789abcdef"],
        "root": "/home/me/keys",
    }
    assert provenance.mask_config(config) == {
        "note": "it is ***",
        "list": ["***"],
        "root": "/home/me/keys",
    }
    assert "0123456789abcdef" not in provenance.command_line(["prog", "note=0123456789abcdef"])


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("service:\n  api_key: hunter2\n  name: x", "service:\n  api_key: ***\n  name: x"),
        ("- +service.api_key=hunter2\n- seed=1", "- +service.api_key=***\n- seed=1"),
        (
            "override_dirname: access_token=hunter2,seed=1",
            "override_dirname: access_token=***,seed=1",
        ),
        ("ValueError: https://me:hunter2@host/x", "ValueError: https://***@host/x"),
        ("token: learned\nkey: size", "token: learned\nkey: size"),
    ],
)
def test_credentials_in_texts_are_masked(text, masked):
    assert provenance.mask_text(text) == masked
