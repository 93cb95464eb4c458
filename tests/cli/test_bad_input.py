"""A mistake gets one line that names it and the way out, status 2, and leaves nothing half done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bad_input import FAST, cases, damage
from hypothesis import example, given, settings
from hypothesis import strategies as st

NAMES = list(cases(Path("/sound"), Path("/bad")))
BEFORE = {"config.yaml", "hydra.yaml", "overrides.yaml", "train.log", ".running.lock"}
"""What Hydra and the claim leave in a run's folder before the run begins."""
# A kind each: of the parser, of a config, of what a run and the other verbs find.
WITH_A_NEW_INTERPRETER = ["unknown flag", "unknown choice", "truncated image", "report of nothing"]


@pytest.fixture(scope="module")
def bad(tmp_path_factory, mvtec_root):
    return damage(tmp_path_factory.mktemp("bad"), mvtec_root)


def check(done, expected, place):
    """Status and errors of a finished process, and what it left in its folder."""
    status, output, errors = done
    lines = [line for line in errors.splitlines() if line.strip()]
    assert status == 2, errors
    assert "Traceback" not in output + errors
    assert lines and lines[-1].startswith("anomalib-rd: "), errors
    for part in expected:
        assert part in lines[-1]
    assert lines[-1] == " ".join(lines[-1].split()) or "  " not in lines[-1]
    # The licence stands before whatever a download says.
    assert len(lines) == 1 or lines[0].startswith("MVTec AD, (c)"), errors
    left = {path.name for path in place.rglob("*") if path.is_file()}
    assert left <= BEFORE, left


@pytest.mark.parametrize("name", NAMES)
def test_one_line_and_status_2(forked, bad, mvtec_root, tmp_path, name):
    words, expected = cases(mvtec_root, bad)[name]
    done = forked(*words, cwd=tmp_path)
    check((done.status, done.out, done.err), expected, tmp_path)
    assert not (bad / "pwned").exists()  # what a pickle or a config would have had run


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_A_NEW_INTERPRETER)
def test_so_it_is_with_a_new_interpreter(bad, mvtec_root, tmp_path, name):
    words, expected = cases(mvtec_root, bad)[name]
    done = subprocess.run(
        [sys.executable, "-m", "anomalib_rd", *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    check((done.returncode, done.stdout, done.stderr), expected, tmp_path)


def keys():
    """All keys of a run's config but those of Hydra's own part."""
    from omegaconf import OmegaConf

    from anomalib_rd.cli.config import compose_config, register_resolvers
    from anomalib_rd.cli.errors import dotted

    register_resolvers()
    config = OmegaConf.to_container(compose_config(["data=mvtec"]), resolve=False)
    return dotted({key: value for key, value in config.items() if key != "hydra"})


ODD = ["null", "-1", "0", "1", "1.5", "nan", "inf", "1e9", "true", "x", "''", "[]", "{}", "[a,b]"]
ODD += ["{_target_:os.getcwd}", "${seed}", "${nothing}", "../x", "é", "a b", "\\,", "'", "["]
TINY = ["model.student.design=generic", "model.teacher.name=test_efficientnet.r160_in1k"]
TINY += ["model.teacher.weights=random", "callbacks=none", "report.heatmaps=0"]


# The same examples each time; `EXAMPLES=1000` tries others too.
@settings(
    max_examples=int(os.environ.get("EXAMPLES", 16)),
    derandomize="EXAMPLES" not in os.environ,
    database=None,
)
@given(key=st.deferred(lambda: st.sampled_from(keys())), value=st.sampled_from(ODD))
@example(key="optimizer", value="null")
@example(key="speed.precision", value="x")
def test_any_override_is_taken_or_refused_in_one_line(
    forked, tmp_path_factory, mvtec_root, key, value
):
    """Up to where the training would begin."""
    place = tmp_path_factory.mktemp("run")
    words = ["train", "data=mvtec", f"data.root={mvtec_root}", "data.category=cloth"]
    words += ["logger=none", *FAST, *TINY, f"{key}={value}", "hydra.run.dir=r"]
    done = forked(*words, cwd=place, until_training=True)
    assert "Traceback" not in done.err, done.err
    if done.status != 0:
        lines = [line for line in done.err.splitlines() if line.strip()]
        assert done.status == 2 and lines[-1].startswith("anomalib-rd: "), done.err
