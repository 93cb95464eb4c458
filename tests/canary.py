"""Code from elsewhere, as far as anomalib-rd knows: it notes that it ran."""

SUNG = []
TARGET = "canary.sing"


def sing(*args, **kwargs):
    """Note the call; what it gives can be called too, for ``_partial_`` and callbacks."""
    SUNG.append((args, kwargs))
    return sing
