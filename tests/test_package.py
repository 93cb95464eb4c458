"""Safe file access, version bounds, documents, fast start, complete wheel."""

import ast
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
# Arguments that no ruff rule checks: without them a file may run code or a PostScript interpreter.
SAFE = {
    "torch.load": "weights_only=True",
    "np.load": "allow_pickle=False",
    "Image.open": "formats=",
}


def test_files_are_opened_with_safe_arguments():
    calls = [
        (path.name, node.lineno, ast.unparse(node.func), ast.unparse(node))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SAFE
    ]
    assert {name for _, _, name, _ in calls} == set(SAFE)
    assert [call for call in calls if SAFE[call[2]] not in call[3]] == []


def test_dependencies_have_the_bounds_that_the_code_needs():
    """NumPy 2.2 added savez_compressed(allow_pickle=); Hydra 1.3 has the private interfaces."""
    bounds = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    needed = {r.name: r.specifier for r in map(Requirement, bounds["dependencies"])}
    assert "2.2.0" in needed["numpy"] and "2.1.3" not in needed["numpy"]
    assert "1.3.8" in needed["hydra-core"] and "1.4.0" not in needed["hydra-core"]


def test_documents_name_existing_files():
    root = PACKAGE.parent
    documents = [*root.glob("*.md"), *root.glob("experiments/**/*.md")]
    missing = []
    for document in documents:
        text = document.read_text()
        paths = {document.parent / link for link in re.findall(r"\]\(([^)#]+)\)", text)}
        paths |= {root / path for path in re.findall(r"\btests/[\w/]+\.py", text)}
        missing += [(document.name, str(p)) for p in paths if ":" not in str(p) and not p.exists()]
    assert len(documents) > 15 and missing == []


@pytest.mark.parametrize("code", ["import anomalib_rd", "import anomalib_rd.cli"])
def test_import_is_fast(code):
    check = f"{code}; import sys; assert not {{'torch', 'hydra', 'pandas'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_wheel_works_in_an_empty_folder(tmp_path):
    """A pure Python wheel is installed by unpacking it."""
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=PACKAGE.parent, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site)}
    code = "import anomalib_rd; print(anomalib_rd.__file__)"
    location = subprocess.run([sys.executable, "-c", code], cwd=empty, env=env, capture_output=True)
    assert str(site).encode() in location.stdout
    command = [sys.executable, "-m", "anomalib_rd", "train", "--cfg", "job"]
    done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "name: fmg_rd" in done.stdout, done.stderr
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"anomalib_rd/published.yaml", "anomalib_rd/py.typed"} <= names
    assert not any(name.startswith(("tests", "experiments")) for name in names)
