"""The words after a verb, read as every verb reads them."""

import argparse
from typing import NoReturn

from anomalib_rd.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all mistakes are said; argparse would show its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message."""
        verb = self.prog.removeprefix("anomalib-rd ")
        raise UserError(f"{verb}: {message}; see `{self.prog} --help`")
