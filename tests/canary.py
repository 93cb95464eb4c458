"""A function that stands for foreign code: it records each call."""

CALLS = []
TARGET = "canary.record_call"


def record_call(*args, **kwargs):
    """Record the call; the result is callable too, for ``_partial_`` and callbacks."""
    CALLS.append((args, kwargs))
    return record_call
