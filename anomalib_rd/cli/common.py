"""What commands share: parsers and output streams."""

import argparse
import contextlib
import io
import os
import stat
import sys
from typing import Any, NoReturn

from anomalib_rd.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all mistakes are said; argparse would show its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message."""
        verb = self.prog.removeprefix("anomalib-rd ")
        raise UserError(f"{verb}: {message}; see `{self.prog} --help`")


class RunParser(Parser):
    """Takes a run, and unless told otherwise a device."""

    def __init__(self, verb: str, description: str, device: bool = True) -> None:
        super().__init__(prog=f"anomalib-rd {verb}", description=description)
        self.add_argument("run", metavar="RUN", help="a run's folder, or its checkpoints/last.ckpt")
        if device:
            self.add_argument(
                "--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)"
            )
        self.add_argument(
            "--teacher-weights", metavar="FILE", help="where the teacher's weights are now"
        )
        self.add_argument(
            "--other-teacher",
            action="store_true",
            help="take a teacher that is not the one of the training; scores and threshold suffer",
        )
        self.add_argument(
            "--trust",
            action="store_true",
            help="run code from outside of anomalib-rd that the run's config names",
        )

    def parsed(self, words: list[str]) -> argparse.Namespace:
        """Parse; the run may be said as ``run=RUN`` too."""
        said = [word for word in words if word.startswith("run=")]
        others = [word for word in words if word not in said]
        return self.parse_intermixed_args([*(word[len("run=") :] for word in said), *others])


class Pipe(io.FileIO):
    """The writing end of a pipe; when its reader has left, as `head` does, nothing is written.

    Otherwise the verb would end by BrokenPipeError, and a training or the files of a report would
    be lost for a line that nobody reads.
    """

    def write(self, data: Any) -> int:
        """Write the bytes, or drop them where nobody reads."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for the processes that this one starts too
            os.close(nowhere)
            return len(memoryview(data).cast("B"))


def protect_output() -> None:
    """Make both streams of this process so."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this, as by >&-
            setattr(sys, name, open(os.devnull, "w", errors="ignore"))  # noqa: SIM115, PTH123
            continue
        if not isinstance(stream, io.TextIOWrapper):
            continue
        # A file's name may hold bytes that are no text, or letters that the terminal lacks.
        stream.reconfigure(errors="backslashreplace")
        with contextlib.suppress(OSError):  # in a test it is no file
            if is_pipe(stream.fileno()):
                setattr(sys, name, reopened(stream))


def is_pipe(number: int) -> bool:
    """Whether the file descriptor is of a pipe or socket."""
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def reopened(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream with a `Pipe` below."""
    stream.flush()
    pipe = Pipe(stream.fileno(), "wb", closefd=False)
    buffered = isinstance(stream.buffer, io.BufferedWriter)  # not with PYTHONUNBUFFERED
    return io.TextIOWrapper(
        io.BufferedWriter(pipe) if buffered else pipe,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
