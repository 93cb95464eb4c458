"""Modules marked ``own_process``: their results in any order with other tests."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
import sys
sys.path.insert(0, {here!r})
from own_process import OwnProcessPlugin
def pytest_configure(config):
    config.pluginmanager.register(OwnProcessPlugin(config))
"""
ISOLATED = """
import os, pytest
pytestmark = pytest.mark.own_process
def test_sets_a_variable():
    os.environ["DISTURBED"] = "yes"
def test_shares_the_process():
    assert os.environ["DISTURBED"] == "yes"
def test_fails():
    assert 1 == 2
@pytest.mark.skip(reason="the reason")
def test_skips():
    pass
def test_crashes():
    os._exit(7)
def test_after_the_crash():
    pass
"""
OTHER = """
import os
def test_is_not_disturbed():
    assert "DISTURBED" not in os.environ
"""


XDIST = ["--numprocesses", "2", "--dist", "loadfile"]


@pytest.mark.parametrize("workers", [[], pytest.param(XDIST, marks=pytest.mark.slow)])
def test_a_marked_module_runs_in_its_own_process(tmp_path, workers):
    (tmp_path / "conftest.py").write_text(CONFTEST.format(here=str(Path(__file__).parent)))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = own_process\n")
    # Between a test of its own folder, whose fixtures pytest leaves set up for it, and of another.
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "one/test_0.py").write_text(OTHER)
    (tmp_path / "one/test_a.py").write_text(ISOLATED)
    (tmp_path / "two/test_b.py").write_text(OTHER)
    command = [sys.executable, "-m", "pytest", "-rA", *workers]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = {line.split(" - ")[0] for line in done.stdout.splitlines()}
    assert {
        "PASSED one/test_a.py::test_sets_a_variable",
        "PASSED one/test_a.py::test_shares_the_process",
        "FAILED one/test_a.py::test_fails",
        "FAILED one/test_a.py::test_crashes",
        "FAILED one/test_a.py::test_after_the_crash",
        "PASSED one/test_0.py::test_is_not_disturbed",
        "PASSED two/test_b.py::test_is_not_disturbed",
    } <= lines, done.stdout + done.stderr
    assert "3 failed, 4 passed, 1 skipped" in done.stdout
    assert "assert 1 == 2" in done.stdout and "status 7" in done.stdout
