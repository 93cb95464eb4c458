"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake of input or environment: one line saying what, where, and what to do.

    The command line prints the message alone and exits with status 2; with ``--debug``
    or ``HYDRA_FULL_ERROR=1`` it shows the traceback too.
    """
