"""The exceptions that mean: the user can mend this."""

from collections.abc import Mapping
from typing import Any


class UserError(Exception):
    """A mistake of input or environment: one line saying what, where, and what to do.

    The command line prints the message alone and exits with status 2; with ``--debug``
    or ``HYDRA_FULL_ERROR=1`` it shows the traceback too.
    """


class NotFiniteError(UserError):
    """NaN or infinity in losses, weights or anomaly maps: the run stops there.

    Args:
        message: as of `UserError`.
        details: what ``failure.json`` keeps of it beside the message.
    """

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})
