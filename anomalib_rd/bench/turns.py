"""Processes that work in turns: what drifts on a shared machine drifts for all of them."""

import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from anomalib_rd.errors import UserError


@dataclass(frozen=True)
class Failed:
    """What a process that failed says last: its message, and whether the user can mend it."""

    message: str
    mendable: bool


class Turn:
    """A contestant's own end: it waits for the word, works, and reports the seconds."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.synchronize: Callable[[], None] = lambda: None
        self._started = 0.0

    def ready(self) -> None:
        """Say that all is built."""
        self.pipe.send(None)

    def begin(self) -> None:
        """Wait for the word, then start the clock."""
        self.pipe.recv()
        self._started = time.perf_counter()

    def end(self) -> None:
        """Report the seconds since the word, when the device's work is done, too."""
        self.synchronize()
        self.pipe.send(time.perf_counter() - self._started)


class Contestant:
    """A process of its own that runs ``part(turn, *arguments)``.

    Args:
        name: for messages.
        part: a function of a module, so that the new process can import it. It calls
            ``turn.ready()`` once, ``turn.begin()`` and ``turn.end()`` around each of its turns,
            and returns its result after one more ``begin``.
        arguments: of ``part``, to be pickled.
    """

    def __init__(self, name: str, part: Callable[..., Any], *arguments: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        started = time.perf_counter()
        # Not a daemon: those may not start the processes that read images.
        self.process = context.Process(target=act, args=(theirs, part, arguments), name=name)
        self.process.start()
        theirs.close()
        self._answered = False
        self._started = started

    def ready(self) -> float:
        """Wait until all is built; returns the seconds since the process was started."""
        self._answer()
        return time.perf_counter() - self._started

    def turn(self) -> Any:
        """Give the word and wait for the answer: the turn's seconds, at last the result."""
        self.pipe.send(None)
        return self._answer()

    def leave(self) -> None:
        """End the process; without its pipe it has no more to do."""
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()

    def _answer(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise UserError(
                f"{self.name}: its process died (exit code {self.process.exitcode}), perhaps for "
                "lack of memory; choose fewer contestants by --only, or a smaller --batch-size"
            ) from None
        if isinstance(answer, Failed):
            raise (UserError if answer.mendable else RuntimeError)(f"{self.name}: {answer.message}")
        return answer


def act(pipe: Connection, part: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What a contestant's process does."""
    try:
        pipe.send(part(Turn(pipe), *arguments))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # whoever gave the word has gone
    except Exception as error:
        pipe.send(failure(error))


def failure(error: Exception) -> Failed:
    """The user's mistake among the error and its causes, else the traceback."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, UserError):
            return Failed(str(link), True)
        link = link.__cause__
    return Failed("".join(traceback.format_exception(error)), False)
