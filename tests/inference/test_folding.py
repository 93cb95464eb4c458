"""Folding batch norms changes the features by rounding alone."""

from functools import partial

import pytest
import torch
from torch import nn

from anomalib_rd.inference.load import fold_batch_norms
from anomalib_rd.networks import Distiller, Fusion, NoMasking, Student, Teacher


def randomised(networks):
    """Batch norms as training leaves them, not as they begin."""
    drawn = torch.Generator().manual_seed(0)
    for part in networks.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3, generator=drawn)
            part.running_var.uniform_(0.5, 2, generator=drawn)
            part.weight.data.uniform_(0.5, 1.5, generator=drawn)
            part.bias.data.uniform_(-0.3, 0.3, generator=drawn)
    return networks.eval()


@pytest.mark.parametrize(
    ("teacher", "attention"),
    [("resnet18.tv_in1k", "none"), ("resnet18.tv_in1k", "cbam"), ("tf_efficientnet_lite0", "self")],
)
def test_folded_networks_have_the_same_features(teacher, attention):
    torch.manual_seed(0)
    networks = Distiller(
        Teacher(teacher, weights="random"), NoMasking, partial(Fusion, attention=attention), Student
    )
    networks = randomised(networks)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        before = networks(images)
        after = fold_batch_norms(networks)(images)
    for one, other in zip([*before[0], *before[1]], [*after[0], *after[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * one.abs().max().item())
    assert not any(type(part) is nn.BatchNorm2d for part in networks.modules())
