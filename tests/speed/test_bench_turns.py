"""Processes that take turns. Imports no torch: each process imports this file."""

import os
import signal
import time

import pytest

from anomalib_rd.errors import UserError
from experiments.speed.bench.turns import Contestant


def sleeper(turn, seconds):
    turn.ready()
    for _ in range(2):
        turn.begin()
        time.sleep(seconds)
        turn.end()
    turn.begin()
    return {"pid": os.getpid()}


def with_user_error(turn, error):
    turn.ready()
    turn.begin()
    try:
        raise UserError("fix this")
    except UserError as user_error:
        raise error("in between") from user_error


def broken(turn):
    turn.ready()
    turn.begin()
    raise ValueError("a defect of the program")


def killed(turn):
    turn.ready()
    turn.begin()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def contestant():
    """Start a contestant; stops it at the end."""
    started = []

    def start(part, *arguments):
        started.append(Contestant("the name", part, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_turn_reports_its_seconds_and_the_last_the_result(contestant):
    slow, quick = contestant(sleeper, 0.2), contestant(sleeper, 0.0)
    assert slow.wait_until_ready() > 0 and quick.wait_until_ready() > 0
    for _ in range(2):
        assert slow.take_turn() >= 0.2
        assert 0 <= quick.take_turn() < 0.2
    assert slow.take_turn() == {"pid": slow.process.pid} != quick.take_turn()


def test_time_between_turns_does_not_count(contestant):
    one = contestant(sleeper, 0.0)
    one.wait_until_ready()
    time.sleep(0.3)
    assert one.take_turn() < 0.3


def test_a_user_error_is_raised_with_the_name(contestant):
    one = contestant(with_user_error, RuntimeError)
    one.wait_until_ready()
    with pytest.raises(UserError, match=r"^the name: fix this$"):
        one.take_turn()


def test_a_defect_is_raised_with_its_traceback(contestant):
    one = contestant(broken)
    one.wait_until_ready()
    with pytest.raises(RuntimeError, match="in broken"):
        one.take_turn()


def test_a_killed_process_is_an_error(contestant):
    one = contestant(killed)
    one.wait_until_ready()
    with pytest.raises(UserError, match=r"the name: .*exit code -9"):
        one.take_turn()


def test_a_stopped_process_ends(contestant):
    one = contestant(sleeper, 0.0)
    one.wait_until_ready()
    one.stop()
    assert one.process.exitcode == 0
