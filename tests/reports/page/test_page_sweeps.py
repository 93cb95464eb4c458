from fake_runs import full_run

from anomalib_rd.reports.page.sweeps import find_sweeps
from anomalib_rd.results.sweeps import add_jobs


def test_commands_and_incomplete_runs_of_a_sweep(sweep):
    (found,) = find_sweeps([sweep])
    assert found.commands[0]["text"].startswith("anomalib-rd train -m sweep=x")
    assert found.counts == {"done": 10, "failed": 1, "missing": 1}
    failed, missing = found.incomplete
    assert (failed.folder, failed.state, failed.overrides) == ("failed", "failed", "seed=7")
    assert failed.reason.startswith("RuntimeError: out of memory")
    assert "RuntimeError" in failed.traceback
    assert (missing.state, missing.reason, missing.traceback) == ("missing", "not started", "")


def test_sweeps_in_a_folder_and_other_runs_are_found_once(tmp_path):
    for name in ("one", "two"):
        full_run(tmp_path / name / "run", gallery=False)
        add_jobs(tmp_path / name, f"train {name}", {"run": []})
    full_run(tmp_path / "alone", gallery=False)
    found = find_sweeps([tmp_path, tmp_path / "one"])
    assert [(sweep.folder, sweep.counts) for sweep in found] == [
        (str(tmp_path / "one"), {"done": 1}),
        (str(tmp_path / "two"), {"done": 1}),
        (str(tmp_path), {"done": 1}),
    ]


def test_the_folder_of_a_single_run(tmp_path):
    folder = full_run(tmp_path / "run", gallery=False)
    (found,) = find_sweeps([folder])
    assert found.counts == {"done": 1} and found.commands == found.incomplete == []
