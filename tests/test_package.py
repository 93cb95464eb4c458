"""The layers depend one way, the command starts fast, the wheel is whole."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import anomalib_rd

PACKAGE = Path(anomalib_rd.__file__).parent
FRAMEWORKS = r"^\s*(?:import|from) +(?:lightning|hydra|omegaconf|wandb)\b"


def lines_that_match(pattern, *folders):
    files = (path for folder in folders for path in (PACKAGE / folder).rglob("*.py"))
    return [f"{path}: {m}" for path in files for m in re.findall(pattern, path.read_text(), re.M)]


def test_the_method_knows_no_framework():
    found = lines_that_match(FRAMEWORKS, "data", "networks", "scoring", "metrics")
    assert [line for line in found if "datamodule.py" not in line] == []


def test_results_and_reports_know_no_torch():
    assert lines_that_match(r"^\s*(?:import|from) +torch\b", "results", "reports") == []


def test_dependencies_have_the_bounds_that_the_code_needs():
    """savez_compressed(allow_pickle=) is of NumPy 2.2; Hydra's private interfaces are of 1.3."""
    bounds = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    needed = {r.name: r.specifier for r in map(Requirement, bounds["dependencies"])}
    assert "2.2.0" in needed["numpy"] and "2.1.3" not in needed["numpy"]
    assert "1.3.8" in needed["hydra-core"] and "1.4.0" not in needed["hydra-core"]


@pytest.mark.parametrize("code", ["import anomalib_rd", "import anomalib_rd.cli"])
def test_importing_is_light(code):
    check = f"{code}; import sys; assert not {{'torch', 'hydra', 'pandas'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_wheel_works_in_an_empty_folder(tmp_path):
    """A wheel of pure Python is installed by unpacking it."""
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=PACKAGE.parent, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site)}
    code = "import anomalib_rd; print(anomalib_rd.__file__)"
    where = subprocess.run([sys.executable, "-c", code], cwd=empty, env=env, capture_output=True)
    assert str(site).encode() in where.stdout
    command = [sys.executable, "-m", "anomalib_rd", "train", "--cfg", "job"]
    shown = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True)
    assert shown.returncode == 0 and "name: fmg_rd" in shown.stdout, shown.stderr
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "anomalib_rd/published.yaml" in names
    assert not any(name.startswith(("tests", "experiments")) for name in names)
