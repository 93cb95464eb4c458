"""Batch norms folded into the convolutions before them: the same function, a pass less each."""

from itertools import pairwise
from typing import TypeVar

from timm.models import resnet as timm_resnet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet

# Blocks that apply their children in this order; of others only nn.Sequential is sure to.
BLOCKS = (resnet.BasicBlock, resnet.Bottleneck, timm_resnet.BasicBlock, timm_resnet.Bottleneck)
PAIRS = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


Networks = TypeVar("Networks", bound=nn.Module)


def fold(networks: Networks) -> Networks:
    """Fold in place what can be folded; in eval mode, where rounding alone changes.

    Subclasses of batch norm, which do more, are left.
    """
    for part in list(networks.modules()):
        if isinstance(part, nn.Sequential):
            names = list(pairwise(dict(part.named_children())))
        elif isinstance(part, (*BLOCKS, timm_resnet.ResNet)):
            names = [pair for pair in PAIRS if hasattr(part, pair[1])]
        else:
            continue
        for first, second in names:
            convolution, norm = getattr(part, first), getattr(part, second)
            if isinstance(convolution, CONVOLUTIONS) and type(norm) is nn.BatchNorm2d:
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                setattr(part, first, fuse_conv_bn_eval(convolution, norm, transposed))
                setattr(part, second, nn.Identity())
    return networks
