"""The runs of a sweep: jobs, states, remaining time."""

import json
import threading

import pytest
from fake_runs import fake_run
from test_run_claims import write_running

from anomalib_rd.errors import UserError
from anomalib_rd.results.record import write_failure
from anomalib_rd.results.sweeps import (
    SWEEP,
    Running,
    RunState,
    add_jobs,
    count_states,
    failure_reason,
    find_started_runs,
    read_commands,
    read_states,
    seconds_left,
)


@pytest.fixture
def sweep(tmp_path):
    """One run in each state, one of them twice."""
    jobs = ["bottle/done", "bottle/live", "pill/broken", "pill/cut", "pill/killed", "tile/none"]
    add_jobs(tmp_path, "train -m", {job: [f"name={job}"] for job in jobs})
    fake_run(tmp_path / "bottle/done")
    for name in ("live", "killed"):
        (tmp_path / f"bottle/{name}").mkdir(parents=True, exist_ok=True)
    write_running(tmp_path / "bottle/live", epoch=2)
    write_failure(tmp_path / "pill/broken", ValueError("image 3\nis broken"))
    (tmp_path / "pill/cut/checkpoints").mkdir(parents=True)
    (tmp_path / "pill/cut/checkpoints/last.ckpt").touch()
    write_running(tmp_path / "pill/killed", created=1.0)
    return tmp_path


def test_states(sweep):
    states = {state.run: state for state in read_states(sweep)}
    assert {run: state.state for run, state in states.items()} == {
        "bottle/done": "done",
        "bottle/live": "running",
        "pill/broken": "failed",
        "pill/cut": "interrupted",
        "pill/killed": "interrupted",
        "tile/none": "missing",
    }
    assert states["bottle/done"].seconds == 12.5
    assert states["bottle/live"].running.epoch == states["pill/killed"].running.epoch + 1 == 2
    assert states["pill/broken"].reason == "ValueError: image 3 is broken"
    totals = {"done": 1, "partial": 0, "running": 1, "failed": 1, "interrupted": 2, "missing": 1}
    assert count_states(list(states.values())) == totals


def test_runs_that_are_no_job_are_found(sweep):
    fake_run(sweep / "tile/other")
    assert [state.run for state in read_states(sweep)][-1] == "tile/other"
    (sweep / SWEEP).unlink()
    assert "tile/none" not in [state.run for state in read_states(sweep)]
    assert len(find_started_runs(sweep)) == 6


def test_repeated_command_replaces_its_jobs(tmp_path):
    add_jobs(tmp_path, "first", {"a": ["seed=0"], "b": ["seed=1"]})
    add_jobs(tmp_path, "second", {"b": ["seed=1"], "c": []})
    add_jobs(tmp_path, "first", {"a": ["seed=0"], "d": ["seed=2"]})
    assert [command["command"] for command in read_commands(tmp_path)] == ["second", "first"]
    assert sorted(state.run for state in read_states(tmp_path)) == ["a", "b", "c", "d"]


def test_concurrent_commands_are_all_recorded(tmp_path):
    starts = [
        threading.Thread(target=add_jobs, args=(tmp_path, f"command {i}", {f"run{i}": []}))
        for i in range(8)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len(read_commands(tmp_path)) == len(read_states(tmp_path)) == 8


def test_missing_folder_missing_runs_and_damaged_list(tmp_path):
    with pytest.raises(UserError, match="none"):
        read_states(tmp_path / "none")
    with pytest.raises(UserError, match=str(tmp_path)):
        read_states(tmp_path)
    (tmp_path / SWEEP).write_text(json.dumps({"jobs": []}))
    with pytest.raises(UserError, match=r"sweep\.json: .*'commands'"):
        read_states(tmp_path)


def test_unreadable_failure(sweep):
    (sweep / "pill/broken/failure.json").write_text("{")
    assert failure_reason(sweep / "pill/broken") == "its failure.json cannot be read"


def running(epoch, started=0.0, first=0):
    return Running(1, 0.0, "host", started, epoch=epoch, epochs=10, first_epoch=first)


def test_time_left_from_completed_runs():
    done = [RunState("a", "done", seconds=90.0), RunState("b", "done", seconds=110.0)]
    half = RunState("c", "running", running(5))
    missing, failed = RunState("d", "missing"), RunState("e", "failed")
    cut = RunState("f", "interrupted", running(8))
    assert seconds_left([*done, half], now=0) == pytest.approx(50)
    assert seconds_left([*done, half, missing, failed], now=0) == pytest.approx(150)
    assert seconds_left([*done, half, half, missing], now=0) == pytest.approx(100)
    assert seconds_left([*done, half, missing, cut], now=0) == pytest.approx(170)
    # The slowest running run is a lower bound.
    fresh, nearly = RunState("g", "running", running(0)), RunState("h", "running", running(9))
    assert seconds_left([*done, fresh, nearly], now=0) == pytest.approx(100)


def test_duration_of_resumed_runs_is_ignored():
    states = [
        RunState("a", "done", seconds=10.0, resumed=True),
        RunState("b", "done", seconds=100.0),
        RunState("c", "running", running(0)),
    ]
    assert seconds_left(states, now=0) == pytest.approx(100)


def test_time_left_from_running_epochs():
    # Resumed after 4 epochs, 2 more in 20 s: 100 s for 10.
    states = [RunState("a", "running", running(6, started=980.0, first=4))]
    assert seconds_left(states, now=1000) == pytest.approx(40)


def test_time_left_is_unknown():
    assert seconds_left([RunState("a", "done", seconds=1.0)], now=0) == 0
    assert seconds_left([RunState("a", "failed")], now=0) == 0
    assert seconds_left([RunState("a", "done", seconds=1.0), RunState("b", "missing")], 0) is None
    assert seconds_left([RunState("a", "running", running(None))], now=0) is None
