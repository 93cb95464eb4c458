"""The states of all random numbers, kept in a checkpoint so that a resumed run draws the same."""

import random
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """States of torch (CPU, every CUDA device), NumPy and Python in this process.

    Tensors and plain types alone, which ``torch.load(weights_only=True)`` takes.
    """
    version, words, gauss = random.getstate()
    kind, state, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(state).astype(np.int64))],
        "numpy_rest": [int(position), int(has_gauss), float(cached)],
        "python": [version, list(words), gauss],
    }


def seed_all(seed: int) -> None:
    """Seed torch (every device), NumPy and Python in this process."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def restore(states: dict[str, Any]) -> None:
    """Go on drawing where `capture` was called; CUDA devices that were not there are left alone."""
    torch.set_rng_state(states["torch"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
    kind, words = states["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *states["numpy_rest"]))
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python), gauss))


def capture_all() -> list[dict[str, Any]]:
    """The states of every process of a distributed run, by rank; called by all of them at once."""
    mine = capture()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [mine]
    every: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, mine)
    return every
