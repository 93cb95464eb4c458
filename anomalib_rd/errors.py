"""Exceptions that mean a user error."""

from collections.abc import Mapping
from typing import Any


class UserError(Exception):
    """A mistake in input or environment: one line with what is wrong, where, and what to do.

    The command line prints only the message and exits with status 2; ``--debug`` or
    ``HYDRA_FULL_ERROR=1`` shows the traceback.
    """


class NotFiniteError(UserError):
    """NaN or infinity in losses, weights or anomaly maps, which stops the run.

    Args:
        message: as of `UserError`.
        details: written to ``failure.json`` besides the message.
    """

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})
