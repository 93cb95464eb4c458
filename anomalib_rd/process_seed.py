"""The seeds of a run's processes."""

import numpy as np


def process_seed(seed: int, rank: int) -> int:
    """The seed of one of a run's processes, from 0 to 2**32 - 1.

    The first process has the run's own seed, like a run in one process. Every other rank has
    another one, or all would draw the same masks.
    """
    return seed if rank == 0 else int(np.random.SeedSequence((seed, rank)).generate_state(1)[0])
