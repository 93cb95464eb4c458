"""Random numbers go on where they were left."""

import random

import numpy as np
import pytest
import torch

from anomalib_rd.training.callbacks import capture, capture_all, restore


def draw():
    return [
        *torch.rand(3).tolist(),
        *torch.randn(3).tolist(),
        *np.random.rand(3),
        np.random.randn(),
        random.random(),
        random.gauss(0, 1),
    ]


def test_all_go_on_where_they_were_left(tmp_path):
    # An odd number of normal draws: the second of a pair is part of the state.
    draw()
    torch.save({"randomness": capture()}, tmp_path / "states.pt")
    expected = [draw(), draw()]
    draw()
    restore(torch.load(tmp_path / "states.pt", weights_only=True)["randomness"])
    assert [draw(), draw()] == expected


def test_alone_there_is_one_process():
    (mine,) = capture_all()
    assert torch.equal(mine["torch"], torch.get_rng_state())


@pytest.mark.gpu
def test_a_gpu_goes_on_too():
    torch.rand(1, device="cuda")
    states = capture()
    expected = torch.rand(5, device="cuda")
    torch.rand(5, device="cuda")
    restore(states)
    assert torch.equal(torch.rand(5, device="cuda"), expected)
