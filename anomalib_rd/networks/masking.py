"""Feature masking: hide positions of the teacher's features from the student."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoMasking(nn.Module):
    """RD4AD without masks: the student sees every feature."""

    def __init__(self, channels: Sequence[int]) -> None:  # noqa: ARG002
        super().__init__()

    def draw_masks(self, features: list[Tensor]) -> list[list[Tensor]]:
        """One set of zero masks: [[mk (B, 1, Hk, Wk)]]."""
        return [[torch.zeros_like(f[:, :1]) for f in features]]

    def forward(self, features: list[Tensor], masks: list[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """The features, unchanged."""
        return features


class FeatureMasking(nn.Module):
    """Masks the same positions of the feature maps on every scale.

    Masks are drawn on the coarsest scale's grid and resized to the finer ones by nearest
    neighbour, so that hidden features cannot be inferred from another scale. Hidden positions
    are set to zero or to a learned token; a generation block may restore them from their
    neighbourhood before the fusion (the idea of MGD, arXiv 2205.01529).

    Args:
        channels: channels of the feature maps, finest first.
        strategy: ``random`` positions, ``block``s of ``block_size`` x ``block_size`` cells, or
            ``attention``, which prefers spatially redundant positions of the coarsest features.
        ratio: share of hidden positions of the coarsest grid, in (0, 1).
        block_size: side of a block in cells of the coarsest grid; required for ``block``.
        temperature: required for ``attention``: near 0 the most redundant positions are always
            hidden, large values approach ``random``.
        token: value of a hidden position, ``zero`` or ``learned``.
        generation: whether a generation block restores hidden positions.
        inference: ``none`` (no masks) or ``complementary``: one pass per mask, where the masks
            together hide every position once, and each position is taken from the pass that hides
            it.
        complements: number of complementary masks; None: about 1 / ratio, at least 2.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strategy: Literal["random", "block", "attention"],
        ratio: float,
        block_size: int | None = None,
        temperature: float | None = None,
        token: Literal["zero", "learned"] = "zero",
        generation: bool = False,
        inference: Literal["none", "complementary"] = "none",
        complements: int | None = None,
    ) -> None:
        super().__init__()
        is_block, is_attention = strategy == "block", strategy == "attention"
        _require("strategy", strategy, strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}")
        _require("token", token, token in ("zero", "learned"), "zero or learned")
        _require("inference", inference, inference in INFERENCE, " or ".join(INFERENCE))
        _require("ratio", ratio, 0 < ratio < 1, "between 0 and 1, both excluded")
        valid = block_size >= 1 if block_size is not None else not is_block
        _require("block_size", block_size, valid, "at least 1")
        valid = temperature > 0 if temperature is not None else not is_attention
        _require("temperature", temperature, valid, "above 0")
        _require("complements", complements, complements is None or complements >= 2, "at least 2")
        self.ratio, self.inference = ratio, inference
        self.block_size = block_size if block_size and is_block else 1
        self.temperature = temperature if is_attention else None
        self.complements = complements or max(2, round(1 / ratio))
        self.tokens = nn.ParameterList(
            nn.Parameter(torch.zeros(1, c, 1, 1)) for c in channels if token == "learned"
        )
        self.generators = nn.ModuleList(_generation_block(c) for c in channels if generation)

    def draw_masks(self, features: list[Tensor]) -> list[list[Tensor]]:
        """Sets of masks, 1 where hidden: [[mk (B, 1, Hk, Wk)] for each set].

        In training one random set; in evaluation one of zeros, or the complementary sets, which
        are the same in every call.
        """
        coarsest = features[-1]
        if self.training:
            mask_sets = [_hide_highest(self._priorities(coarsest), self.ratio)]
        elif self.inference == "complementary":
            mask_sets = self._complementary(coarsest)
        else:
            mask_sets = [torch.zeros_like(coarsest[:, :1])]
        return [[F.interpolate(m, f.shape[-2:]) for f in features] for m in mask_sets]

    def forward(self, features: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Mask the features [Fk (B, Ck, Hk, Wk)] by [mk (B, 1, Hk, Wk)]."""
        if not self.training and self.inference == "none":
            return features
        masked = [f * (1 - m) for f, m in zip(features, masks, strict=True)]
        if self.tokens:
            masked = [f + m * t for f, m, t in zip(masked, masks, self.tokens, strict=True)]
        if self.generators:
            masked = [
                f + m * generate(f)
                for f, m, generate in zip(masked, masks, self.generators, strict=True)
            ]
        return masked

    def _priorities(self, coarsest: Tensor) -> Tensor:
        """Draw (B, 1, H, W): the cells with the highest values are hidden first."""
        batch, _, height, width = coarsest.shape
        if self.temperature is not None:
            # Gumbel top-k trick: the k highest values are a draw without replacement with
            # probabilities proportional to exp(redundancy / temperature).
            gumbel = -torch.empty_like(coarsest[:, :1]).exponential_().log()
            return _redundancy(coarsest) / self.temperature + gumbel
        draw = torch.rand(batch, 1, *self._blocks(height, width), device=coarsest.device)
        return self._expand(draw, height, width)

    def _complementary(self, coarsest: Tensor) -> list[Tensor]:
        """Masks [(B, 1, H, W)] that together hide every cell exactly once."""
        batch, _, height, width = coarsest.shape
        blocks = self._blocks(height, width)
        order = _fixed_permutation(math.prod(blocks)).view(1, 1, *blocks).float()
        turn = self._expand(order.to(coarsest.device), height, width) % self.complements
        return [
            (turn == k).to(coarsest.dtype).expand(batch, 1, height, width)
            for k in range(self.complements)
        ]

    def _blocks(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of blocks that cover the grid."""
        return math.ceil(height / self.block_size), math.ceil(width / self.block_size)

    def _expand(self, blocks: Tensor, height: int, width: int) -> Tensor:
        """Expand one value per block to its cells."""
        if self.block_size == 1:
            return blocks
        return F.interpolate(blocks, scale_factor=self.block_size)[..., :height, :width]


STRATEGIES = ("random", "block", "attention")
INFERENCE = ("none", "complementary")


@cache
def _fixed_permutation(count: int) -> Tensor:
    """The same permutation in every call; cached, so that it is a constant in a trace."""
    with torch.inference_mode(False):
        return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _hide_highest(priorities: Tensor, ratio: float) -> Tensor:
    """Mask (B, 1, H, W), 1 on the share ``ratio`` of the cells with the highest priority.

    Cells of one block have equal priority, so the last block is hidden completely.
    """
    flat = priorities.flatten(1)
    count = max(1, round(ratio * flat.shape[1]))
    lowest_hidden = flat.topk(count, dim=1).values[:, -1]
    return (priorities >= lowest_hidden.view(-1, 1, 1, 1)).to(priorities.dtype)


def _redundancy(features: Tensor) -> Tensor:
    """Cosine in [-1, 1] between a position and the mean of its 3x3 neighbours, (B, 1, H, W)."""
    around = F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)
    return F.cosine_similarity(features, around, dim=1).unsqueeze(1)


def _generation_block(channels: int) -> nn.Module:
    """MGD's generation block: two 3x3 convolutions with a ReLU between."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


def _require(name: str, value: object, valid: bool, requirement: str) -> None:
    if not valid:
        raise ValueError(f"{name}={value}: must be {requirement}")
