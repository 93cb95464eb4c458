"""Closed pipes and characters that cannot be shown do not end a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import sys
from pathlib import Path
from anomalib_rd.cli.common import protect_output

protect_output()
for number in range(20000):
    print("a line of text", number)
    print("and of errors", number, file=sys.stderr)
print("p\\udcf6[left] \u00fc", flush=True)
Path("done").touch()
"""


def start(code, folder, **variables):
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_work_goes_on_when_the_reader_leaves(tmp_path, variables):
    process = start(WORK, tmp_path, **variables)
    assert process.stdout.readline() == b"a line of text 0\n"
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_names_that_cannot_be_shown_are_escaped(tmp_path):
    process = start(WORK, tmp_path, PYTHONIOENCODING="ascii")
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[-1] == rb"p\udcf6[left] \xfc"


def test_closed_output(tmp_path):
    command = [sys.executable, "-c", WORK]
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" >&- 2>/dev/null', *command], cwd=tmp_path, check=False
    )
    assert done.returncode == 0 and (tmp_path / "done").exists()


def test_report_writes_its_files_for_a_reader_that_left(run, tmp_path):
    code = "import sys; from anomalib_rd.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "report", str(run), "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(120) == 0 and error == b""
    names = {path.name for path in Path(tmp_path).iterdir()}
    assert {"table.md", "table.tex"} <= names
