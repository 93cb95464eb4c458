"""Random states are saved and restored."""

import random

import numpy as np
import pytest
import torch

from anomalib_rd.training.callbacks import (
    all_random_states,
    random_state,
    set_random_state,
)


def draw():
    return [
        *torch.rand(3).tolist(),
        *torch.randn(3).tolist(),
        *np.random.rand(3),
        np.random.randn(),
        random.random(),
        random.gauss(0, 1),
    ]


def test_random_numbers_continue_from_a_saved_state(tmp_path):
    # An odd number of normal draws: the second of a pair is part of the state.
    draw()
    torch.save({"randomness": random_state()}, tmp_path / "states.pt")
    expected = [draw(), draw()]
    draw()
    set_random_state(torch.load(tmp_path / "states.pt", weights_only=True)["randomness"])
    assert [draw(), draw()] == expected


def test_a_single_process_has_one_state():
    (mine,) = all_random_states()
    assert torch.equal(mine["torch"], torch.get_rng_state())


@pytest.mark.gpu
def test_random_numbers_of_a_gpu_continue_too():
    torch.rand(1, device="cuda")
    states = random_state()
    expected = torch.rand(5, device="cuda")
    torch.rand(5, device="cuda")
    set_random_state(states)
    assert torch.equal(torch.rand(5, device="cuda"), expected)
