"""Processes that work in turns: real ones."""

import os
import signal
import time

import pytest

from anomalib_rd.bench.turns import Contestant
from anomalib_rd.errors import UserError


def sleeper(turn, seconds):
    turn.ready()
    for _ in range(2):
        turn.begin()
        time.sleep(seconds)
        turn.end()
    turn.begin()
    return {"pid": os.getpid()}


def mistaken(turn, error):
    turn.ready()
    turn.begin()
    try:
        raise UserError("mend this")
    except UserError as mistake:
        raise error("in between") from mistake


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
    """Start one and see to its end."""
    started = []

    def start(part, *arguments):
        started.append(Contestant("the name", part, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.leave()


def test_a_turn_reports_its_own_seconds_and_the_last_one_the_result(contestant):
    slow, quick = contestant(sleeper, 0.2), contestant(sleeper, 0.0)
    assert slow.ready() > 0 and quick.ready() > 0
    for _ in range(2):
        assert slow.turn() >= 0.2
        assert 0 <= quick.turn() < 0.2
    assert slow.turn() == {"pid": slow.process.pid} != quick.turn()


def test_time_between_turns_is_nobodys(contestant):
    one = contestant(sleeper, 0.0)
    one.ready()
    time.sleep(0.3)
    assert one.turn() < 0.3


def test_the_users_mistake_comes_back_as_one_with_the_name(contestant):
    one = contestant(mistaken, RuntimeError)
    one.ready()
    with pytest.raises(UserError, match=r"^the name: mend this$"):
        one.turn()


def test_a_defect_comes_back_with_its_traceback(contestant):
    one = contestant(broken)
    one.ready()
    with pytest.raises(RuntimeError, match="in broken"):
        one.turn()


def test_a_killed_process_is_told_from_a_slow_one(contestant):
    one = contestant(killed)
    one.ready()
    with pytest.raises(UserError, match=r"the name: its process died \(exit code -9\)"):
        one.turn()


def test_who_is_left_ends(contestant):
    one = contestant(sleeper, 0.0)
    one.ready()
    one.leave()
    assert one.process.exitcode == 0
