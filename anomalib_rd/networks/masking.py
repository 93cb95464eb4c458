"""Feature mask generation: hide a part of the teacher's features from the student."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalib_rd.errors import UserError

Strategy = Literal["random", "block", "attention"]


class NoMasking(nn.Module):
    """RD4AD's case: every feature is seen."""

    def __init__(self, channels: Sequence[int]) -> None:  # noqa: ARG002
        super().__init__()

    def masks(self, features: list[Tensor]) -> list[list[Tensor]]:
        """One round of masks that hide nothing: [[mk (B, 1, Hk, Wk)]]."""
        return [[torch.zeros_like(f[:, :1]) for f in features]]

    def forward(self, features: list[Tensor], masks: list[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """The features as they are."""
        return features


class FeatureMasking(nn.Module):
    """Mask positions of the feature maps, the same places on every scale.

    Masks are drawn on the coarsest scale's grid and brought to the finer ones by nearest
    neighbour, so that what is hidden on one scale can't be read off another. Hidden positions
    hold zero or a learned token; a generation block may restore them from their neighbourhood
    before the fusion (the idea of MGD, arXiv 2205.01529).

    Args:
        channels: channels of the feature maps, finest first.
        strategy: ``random`` positions, ``block``s of ``block_size`` x ``block_size`` cells, or
            ``attention``: rather what is spatially redundant, judged on the coarsest features.
        ratio: part of the coarsest grid's positions that is hidden, in (0, 1).
        block_size: side of a block in cells of the coarsest grid, for ``block``.
        temperature: for ``attention``: near 0 always hides the most redundant positions, large
            values come near to ``random``.
        token: what stands at a hidden position, ``zero`` or ``learned``.
        generation: whether a generation block restores hidden positions.
        inference: ``none`` (the student sees all) or ``complementary``: the features are seen
            through masks which together hide every position once, and each position's
            restoration is taken from the round in which it was hidden.
        complements: number of complementary masks; None takes about 1 / ratio, at least 2.

    Raises:
        UserError: a value outside of these.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strategy: Strategy = "random",
        ratio: float = 0.3,
        block_size: int = 2,
        temperature: float = 0.1,
        token: Literal["zero", "learned"] = "zero",
        generation: bool = False,
        inference: Literal["none", "complementary"] = "none",
        complements: int | None = None,
    ) -> None:
        super().__init__()
        _one_of("strategy", strategy, ("random", "block", "attention"))
        _one_of("token", token, ("zero", "learned"))
        _one_of("inference", inference, ("none", "complementary"))
        _number("ratio", ratio, "between 0 and 1, both excluded", 0 < ratio < 1)
        _number("block_size", block_size, "at least 1", block_size >= 1)
        _number("temperature", temperature, "above 0", temperature > 0)
        _number("complements", complements, "at least 2", complements is None or complements >= 2)
        self.strategy, self.ratio, self.inference = strategy, ratio, inference
        self.block_size = block_size if strategy == "block" else 1
        self.temperature = temperature
        self.complements = complements or max(2, round(1 / ratio))
        self.tokens = nn.ParameterList(
            nn.Parameter(torch.zeros(1, c, 1, 1)) for c in channels if token == "learned"
        )
        self.generators = nn.ModuleList(_generation_block(c) for c in channels if generation)

    def masks(self, features: list[Tensor]) -> list[list[Tensor]]:
        """Rounds of masks, 1 where hidden: [[mk (B, 1, Hk, Wk)] for each round].

        One round of random masks in training; in evaluation one that hides nothing, or the
        complementary ones, which are the same in every call.
        """
        if self.training:
            rounds = [_hide_highest(self._priorities(features[-1]), self.ratio)]
        elif self.inference == "complementary":
            rounds = self._complementary(features[-1])
        else:
            rounds = [torch.zeros_like(features[-1][:, :1])]
        return [[F.interpolate(m, f.shape[-2:]) for f in features] for m in rounds]

    def forward(self, features: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """[Fk (B, Ck, Hk, Wk)], [mk (B, 1, Hk, Wk)] -> the features as the student may see them."""
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
        """Which cells to hide first, (B, 1, H, W): a new draw at each call."""
        batch, _, height, width = coarsest.shape
        if self.strategy == "attention":
            gumbel = -torch.empty_like(coarsest[:, :1]).exponential_().log()
            # Gumbel's trick: the highest k of these are a draw without replacement with
            # probabilities proportional to exp(redundancy / temperature).
            return _redundancy(coarsest) / self.temperature + gumbel
        cells = (math.ceil(height / self.block_size), math.ceil(width / self.block_size))
        draw = torch.rand(batch, 1, *cells, device=coarsest.device)
        return self._blocks(draw, height, width)

    def _complementary(self, coarsest: Tensor) -> list[Tensor]:
        """Masks which together hide every cell exactly once, [(B, 1, H, W)]."""
        batch, _, height, width = coarsest.shape
        cells = (math.ceil(height / self.block_size), math.ceil(width / self.block_size))
        order = _fixed_order(cells[0] * cells[1]).view(1, 1, *cells)
        turn = self._blocks(order.float().to(coarsest.device), height, width) % self.complements
        return [
            (turn == k).to(coarsest.dtype).expand(batch, 1, height, width)
            for k in range(self.complements)
        ]

    def _blocks(self, cells: Tensor, height: int, width: int) -> Tensor:
        """Spread one value a block over its cells."""
        if self.block_size == 1:
            return cells
        return F.interpolate(cells, scale_factor=self.block_size)[..., :height, :width]


@cache
def _fixed_order(count: int) -> Tensor:
    """The same order of so many cells whenever asked for; kept, so that a trace has it as it is."""
    with torch.inference_mode(False):
        return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _hide_highest(priorities: Tensor, ratio: float) -> Tensor:
    """Mask (B, 1, H, W), 1 on the part ``ratio`` of the cells with the highest priority.

    Cells of one block share a priority: the block at the edge of the quota is hidden whole.
    """
    flat = priorities.flatten(1)
    count = max(1, round(ratio * flat.shape[1]))
    lowest_hidden = flat.topk(count, dim=1).values[:, -1]
    return (priorities >= lowest_hidden.view(-1, 1, 1, 1)).to(priorities.dtype)


def _redundancy(features: Tensor) -> Tensor:
    """How well a position is told by its 3x3 neighbours, cosine in [-1, 1], (B, 1, H, W)."""
    around = F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)
    return F.cosine_similarity(features, around, dim=1).unsqueeze(1)


def _generation_block(channels: int) -> nn.Module:
    """MGD's generation block: two 3x3 convolutions with a ReLU between."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"model.masking.{key}={value}: choose one of {', '.join(choices)}")


def _number(key: str, value: float | None, what: str, valid: bool) -> None:
    if not valid:
        raise UserError(f"model.masking.{key}={value}: must be {what}")
