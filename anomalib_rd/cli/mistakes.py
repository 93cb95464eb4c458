"""Which errors are the user's to mend, and how to say them in one line."""

import errno
import re

from anomalib_rd.errors import UserError


def explain(error: BaseException) -> str | None:
    """One line for a mistake that the user can mend; None for a defect of the program."""
    for link in chain(error):
        if isinstance(link, UserError):
            return original(str(link))
        if isinstance(link, OSError) and link.errno == errno.ENOSPC:
            return f"no space left on the device for {link.filename or 'a file'}; free some"
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = error.__cause__
        detail = f"; {cause}" if isinstance(cause, OmegaConfBaseException) else ""
        return one_line(f"{error}{detail}")
    return None


def chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    links = [error]
    while (cause := links[-1].__cause__) is not None and cause not in links:
        links.append(cause)
    return links


def original(message: str) -> str:
    """The message as raised, where a data loader's worker wrapped it into its traceback."""
    if message.startswith("Caught UserError in"):
        message = re.split(r"errors\.UserError: ", message)[-1]
    return one_line(message)


def one_line(text: str) -> str:
    """The text without line breaks and runs of blanks."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "; ".join(line.rstrip(";") for line in lines if line)
