"""Processes that take turns, so that other load on the machine slows all of them equally."""

import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from anomalib_rd.errors import UserError


@dataclass(frozen=True)
class Failure:
    """Last message of a failed process: one line of a user error, or a traceback."""

    message: str
    user_error: bool


class Turn:
    """The contestant's end of the pipe: waits for its turn and reports its duration."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.synchronize: Callable[[], None] = lambda: None
        self._started = 0.0

    def ready(self) -> None:
        """Report that everything is built."""
        self.pipe.send(None)

    def begin(self) -> None:
        """Wait for the turn, then start the clock."""
        self.pipe.recv()
        self._started = time.perf_counter()

    def end(self) -> None:
        """Report the seconds of the turn, the device's work included."""
        self.synchronize()
        self.pipe.send(time.perf_counter() - self._started)


class Contestant:
    """A process that runs ``work(turn, *arguments)``.

    Args:
        name: for messages.
        work: an importable function, which calls ``turn.ready()`` once, ``turn.begin()`` and
            ``turn.end()`` around each turn, and returns its result after another ``begin``.
        arguments: of ``work``; picklable.
    """

    def __init__(self, name: str, work: Callable[..., Any], *arguments: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, child_pipe = context.Pipe()
        self._started = time.perf_counter()
        # Not a daemon: a daemon may not start data loader workers.
        self.process = context.Process(target=_run, args=(child_pipe, work, arguments), name=name)
        self.process.start()
        child_pipe.close()

    def wait_until_ready(self) -> float:
        """Wait until everything is built; returns the seconds since the process started."""
        self._receive()
        return time.perf_counter() - self._started

    def take_turn(self) -> Any:
        """Start a turn and wait for its end; returns its seconds, or in the end the result."""
        self.pipe.send(None)
        return self._receive()

    def stop(self) -> None:
        """End the process; it stops when its pipe closes."""
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()

    def _receive(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise UserError(
                f"{self.name}: its process died (exit code {self.process.exitcode}), perhaps out "
                "of memory; choose fewer contestants by --only, or a smaller --batch-size"
            ) from None
        if isinstance(answer, Failure):
            kind = UserError if answer.user_error else RuntimeError
            raise kind(f"{self.name}: {answer.message}")
        return answer


def _run(pipe: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        pipe.send(work(Turn(pipe), *arguments))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the parent has gone
    except Exception as error:
        link: BaseException | None = error
        while link is not None and not isinstance(link, UserError):
            link = link.__cause__
        text = str(link) if link else "".join(traceback.format_exception(error))
        pipe.send(Failure(text, user_error=link is not None))
