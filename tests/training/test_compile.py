"""speed.compile changes only the rounding: the same masks, the same dropout, the same loss."""

from functools import partial

import pytest
import torch
from torch import nn

from anomalib_rd.networks import Distiller, FeatureMasking, FlattenedCosine
from anomalib_rd.scoring import AnomalyScorer
from anomalib_rd.training.module import DistillationModule

CHANNELS = (4, 6)
STRATEGIES = ["random", "block", "attention"]


class Teacher(nn.Module):
    """Two scales, 8 x 8 and 4 x 4."""

    channels = CHANNELS

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, CHANNELS[0], 4, stride=4)
        self.coarse = nn.Conv2d(CHANNELS[0], CHANNELS[1], 2, stride=2)

    @torch.no_grad()
    def forward(self, images):
        fine = self.fine(images.float())
        return [fine, self.coarse(fine)]


class Fusion(nn.Module):
    """Halves the coarsest scale."""

    out_channels = 8

    def __init__(self, teacher):
        super().__init__()
        self.down = nn.Conv2d(CHANNELS[1], self.out_channels, 2, stride=2)

    def forward(self, features):
        return self.down(features[-1])


class Student(nn.Module):
    """A student with dropout."""

    def __init__(self, teacher, in_channels):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.coarse = nn.ConvTranspose2d(in_channels, CHANNELS[1], 2, stride=2)
        self.fine = nn.ConvTranspose2d(CHANNELS[1], CHANNELS[0], 2, stride=2)

    def forward(self, bottleneck):
        coarse = self.coarse(self.dropout(bottleneck))
        return [self.fine(coarse), coarse]


class Recorded(FlattenedCosine):
    """Records the student's features."""

    def forward(self, features, restored):
        self.restored = restored
        return super().forward(features, restored)


class RecordedMasking(FeatureMasking):
    """Records the last masks."""

    def draw_masks(self, features):
        mask_sets = super().draw_masks(features)
        (self.last,) = mask_sets
        return mask_sets


def step(compile, strategy):
    """Masks, restored features, loss and gradients of the second of two steps from one seed."""
    torch.manual_seed(0)
    masking = partial(RecordedMasking, strategy=strategy, ratio=0.3, block_size=2, temperature=0.1)
    module = DistillationModule(
        Distiller(Teacher(), masking, Fusion, Student),
        AnomalyScorer(),
        Recorded(),
        optimizer=torch.optim.SGD,
        compile=compile,
    )
    module.log = lambda *_, **__: None
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    for _ in range(2):
        module.zero_grad()
        loss = module.training_step({"index": torch.arange(3), "image": images})
        loss.backward()
    gradients = [p.grad for p in module.distiller.student.parameters()]
    return module.distiller.masking.last, module.loss.restored, loss.detach(), gradients


@pytest.mark.slow
@pytest.mark.timeout(1000)  # where the cores are shared
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_compiled_step_draws_the_same_numbers_and_differs_only_by_rounding(strategy):
    masks, restored, loss, gradients = step(False, strategy)
    same_masks, close, close_loss, close_gradients = step(True, strategy)
    assert 0 < masks[-1].mean() < 1
    assert all(torch.equal(a, b) for a, b in zip(masks, same_masks, strict=True))
    torch.testing.assert_close(close, restored)
    torch.testing.assert_close(close_loss, loss)
    torch.testing.assert_close(close_gradients, gradients)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_are_drawn_outside_of_the_compiled_part(strategy, monkeypatch):
    def keep_state(work, **_):
        def watched(*args):
            before = torch.get_rng_state()
            found = work(*args)
            moved.append(not torch.equal(before, torch.get_rng_state()))
            return found

        return watched

    moved = []
    monkeypatch.setattr(torch, "compile", keep_state)
    monkeypatch.setattr(Student, "forward", lambda self, x: [self.fine(y := self.coarse(x)), y])
    step(True, strategy)
    assert moved == [False, False]
