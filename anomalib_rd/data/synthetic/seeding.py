"""Random numbers that depend on names alone: the same in any process, order and machine."""

import hashlib

import numpy as np


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of their own for each ``name``, such as an image's relative path."""
    return np.random.default_rng(int.from_bytes(_digest(seed, name), "big"))


def draw(seed: int, name: str) -> float:
    """One number in [0, 1) for ``name``, to choose or order by."""
    return int.from_bytes(_digest(seed, name)[:8], "big") / 2**64


def _digest(seed: int, name: str) -> bytes:
    # A path may hold bytes that are no UTF-8.
    return hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest()
