"""Standard output and error that never end a verb: names of any bytes, readers that leave."""

import contextlib
import io
import os
import stat
import sys
from typing import Any


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
