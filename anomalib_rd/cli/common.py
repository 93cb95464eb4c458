"""Shared by the commands: the parser, the options of a run, robust output streams."""

import argparse
import contextlib
import io
import math
import os
import shutil
import stat
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from anomalib_rd.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and whose help is formatted by rich-argparse."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        command = self.prog.removeprefix("anomalib-rd").strip()
        raise UserError(f"{command}{': ' * bool(command)}{message}; see `{self.prog} --help`")

    def format_help(self) -> str:
        """The help text. Rich is imported only here, where help is printed."""
        from rich_argparse import RawDescriptionRichHelpFormatter

        class HelpFormatter(RawDescriptionRichHelpFormatter):
            text_markup = False  # [a,b] is a list, not markup

            def __init__(self, prog: str) -> None:
                super().__init__(prog, max_help_position=28)
                self._action_max_length = 15  # argparse forgets the indentation of subcommands

        self.formatter_class = HelpFormatter
        width = shutil.get_terminal_size().columns - 2
        self.description = textwrap.fill(self.description or "", width)
        return super().format_help()

    def describe(self, description: str, *examples: str) -> None:
        """Set the description, and examples of arguments below the options."""
        self.description = description
        if examples:
            lines = "\n".join(f"  {self.prog} {example}".rstrip() for example in examples)
            self.epilog = f"Examples:\n{lines}"


def number(kind: Callable[[str], float], low: float = -math.inf) -> Callable[[str], Any]:
    """An argparse type: a finite int or float that is at least ``low``."""

    def read(text: str) -> float:
        value = kind(text)
        if not math.isfinite(value) or value < low:
            least = f" and at least {low}" if math.isfinite(low) else ""
            raise argparse.ArgumentTypeError(f"{text}: must be finite{least}")
        return value

    read.__name__ = kind.__name__  # argparse names it: invalid int value
    return read


def add_run_arguments(parser: Parser, device: bool = True) -> None:
    """Add the run and the options for loading it."""
    parser.add_argument("run", metavar="RUN", help="run folder or its checkpoints/last.ckpt")
    if device:
        parser.add_argument(
            "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
        )
    parser.add_argument(
        "--teacher-weights", metavar="FILE", help="current path of the teacher's weights"
    )
    parser.add_argument(
        "--other-teacher",
        action="store_true",
        help="accept a teacher that differs from the trained one; scores and threshold get worse",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="allow the run's config to execute code from outside of anomalib-rd",
    )


def parse_run_keyword(options: argparse.Namespace, positionals: str) -> None:
    """Accept ``run=RUN`` in any position, instead of RUN in the first.

    Args:
        options: parsed; corrected in place.
        positionals: name of the list of the other positional arguments.
    """
    arguments = [options.run, *getattr(options, positionals)]
    named = [argument for argument in arguments if argument.startswith("run=")]
    if named:
        options.run = named[-1].removeprefix("run=")
        setattr(options, positionals, [argument for argument in arguments if argument not in named])


class Pipe(io.FileIO):
    """The writing end of a pipe; discards output once the reader is gone, as after ``head``.

    A BrokenPipeError would abort a training for a line that nobody reads.
    """

    def write(self, data: Any) -> int:
        """Write the bytes, or discard them."""
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # for the processes that this one starts too
            os.close(null)
            return len(memoryview(data).cast("B"))


def protect_output() -> None:
    """Make stdout and stderr accept closed pipes and characters that they cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process, as by >&-
            setattr(sys, name, open(os.devnull, "w", errors="ignore"))  # noqa: SIM115, PTH123
            continue
        if not isinstance(stream, io.TextIOWrapper):
            continue
        # File names may hold bytes that are not text, or characters that the terminal cannot show.
        stream.reconfigure(errors="backslashreplace")
        with contextlib.suppress(OSError):  # pytest's streams are not files
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                setattr(sys, name, _reopen_as_pipe(stream))


def _reopen_as_pipe(stream: io.TextIOWrapper) -> io.TextIOWrapper:
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
