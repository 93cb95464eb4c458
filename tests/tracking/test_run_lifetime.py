import pytest
from lightning.pytorch.loggers import CSVLogger
from wandb_file import read_runs

from anomalib_rd.tracking.wandb_logger import close_runs, finish


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_exception_closes_the_run_as_failed(make_logger, save_dir, error):
    import wandb

    logger = make_logger()
    with pytest.raises(error), close_runs([logger]):
        logger.log_metrics({"train/loss": 1.0})
        raise error
    assert wandb.run is None
    (run,) = read_runs(save_dir)
    assert run.exit_code == 1 and run.summary["train/loss"] == 1.0


def test_other_loggers_are_unchanged(make_logger, save_dir, tmp_path):
    csv = CSVLogger(tmp_path / "csv")
    logger = make_logger()
    with close_runs([csv, logger]):
        for each in (csv, logger):
            each.log_metrics({"a": 1.0}, step=0)
    csv.log_metrics({"a": 2.0}, step=1)  # still open
    csv.save()
    text = next((tmp_path / "csv").rglob("metrics.csv")).read_text()
    assert text.splitlines()[1:] == ["1.0,0", "2.0,1"]
    assert [run.exit_code for run in read_runs(save_dir)] == [0]


def test_no_logger():
    with close_runs([]):
        pass


def test_finishing_twice(make_logger, save_dir):
    logger = make_logger()
    logger.log_metrics({"a": 1.0})
    finish(logger, failed=False)
    finish(logger, failed=True)
    assert [run.exit_code for run in read_runs(save_dir)] == [0]


def test_error_of_finish_becomes_one_line(make_logger, monkeypatch, caplog):
    logger = make_logger()
    run = logger.experiment
    with monkeypatch.context() as patched:
        patched.setattr(
            type(run), "finish", lambda *_, **__: (_ for _ in ()).throw(TimeoutError("60 s\nmore"))
        )
        with close_runs([logger]):
            pass
    (record,) = [r for r in caplog.records if r.name.startswith("anomalib_rd")]
    message = record.getMessage()
    assert "(60 s)" in message and "`wandb sync " in message and "\n" not in message


def test_error_of_finish_does_not_hide_the_first_error(make_logger, monkeypatch):
    logger = make_logger()
    run = logger.experiment
    with monkeypatch.context() as patched:
        patched.setattr(
            type(run), "finish", lambda *_, **__: (_ for _ in ()).throw(OSError("pipe"))
        )
        with pytest.raises(RuntimeError, match="first"), close_runs([logger]):
            raise RuntimeError("first")
