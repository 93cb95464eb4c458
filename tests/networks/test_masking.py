"""Masks: how much they hide, that the scales agree, what stands in their place."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_rd.networks import FeatureMasking, NoMasking

CHANNELS = (4, 6, 8)
STRATEGIES = st.sampled_from(["random", "block", "attention"])


def features(batch=2, height=6, width=8):
    sizes = [(height * s, width * s) for s in (4, 2, 1)]
    return [torch.randn(batch, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)]


@settings(max_examples=60, deadline=None)
@given(
    strategy=STRATEGIES,
    ratio=st.floats(0.05, 0.95),
    block=st.integers(1, 4),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    seed=st.integers(0, 1000),
)
def test_masks_are_binary_coherent_and_of_the_ratio(strategy, ratio, block, height, width, seed):
    torch.manual_seed(seed)
    masking = FeatureMasking(CHANNELS, strategy, ratio, block_size=block, temperature=0.1)
    (masks,) = masking.draw_masks(features(3, height, width))
    coarse = masks[-1]
    assert coarse.shape == (3, 1, height, width)
    assert set(coarse.unique().tolist()) <= {0.0, 1.0}
    for mask, scale in zip(masks, (4, 2, 1), strict=True):
        spread = coarse.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        assert torch.equal(mask, spread)  # the same places on every scale
    asked = max(1, round(ratio * height * width))
    cells = block**2 if strategy == "block" else 1
    hidden = coarse.flatten(1).sum(1)
    assert ((hidden >= asked) & (hidden < asked + cells)).all()


@settings(max_examples=40, deadline=None)
@given(
    strategy=STRATEGIES,
    block=st.integers(1, 4),
    complements=st.integers(2, 5),
    height=st.integers(3, 9),
    width=st.integers(3, 9),
)
def test_complementary_masks_hide_every_position_once(strategy, block, complements, height, width):
    masking = FeatureMasking(
        CHANNELS,
        strategy,
        ratio=0.3,
        block_size=block,
        temperature=0.1,
        inference="complementary",
        complements=complements,
    ).eval()
    maps = features(2, height, width)
    rounds = masking.draw_masks(maps)
    assert len(rounds) == complements
    for k in range(3):
        assert (sum(masks[k] for masks in rounds) == 1).all()
    again = masking.draw_masks(maps)
    assert all(
        torch.equal(a, b)
        for x, y in zip(rounds, again, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_evaluation_hides_nothing_by_default():
    masking = FeatureMasking(CHANNELS, "random", 0.3).eval()
    maps = features()
    (masks,) = masking.draw_masks(maps)
    assert all((m == 0).all() for m in masks)
    assert masking(maps, masks) is maps


def test_hidden_positions_hold_zero_or_the_token_and_others_stay():
    maps = features()
    for token, stands in (("zero", 0.0), ("learned", 7.0)):
        masking = FeatureMasking(CHANNELS, "random", 0.3, token=token)
        for parameter in masking.tokens:
            torch.nn.init.constant_(parameter, 7.0)
        (masks,) = masking.draw_masks(maps)
        for before, after, mask in zip(maps, masking(maps, masks), masks, strict=True):
            hidden = mask.bool().expand_as(before)
            assert (after[hidden] == stands).all()
            assert torch.equal(after[~hidden], before[~hidden])


def test_generation_block_changes_hidden_positions_only():
    maps = features()
    masking = FeatureMasking(CHANNELS, "random", 0.3, generation=True)
    (masks,) = masking.draw_masks(maps)
    for before, after, mask in zip(maps, masking(maps, masks), masks, strict=True):
        hidden = mask.bool().expand_as(before)
        assert torch.equal(after[~hidden], before[~hidden])
        assert (after[hidden] != 0).any()


def test_attention_strategy_hides_the_redundant_half():
    """One half of the map is constant, the other noise: the constant half says least."""
    torch.manual_seed(0)
    coarsest = torch.randn(1, 8, 8, 16)
    coarsest[..., :8] = coarsest[..., :1, :1]
    masking = FeatureMasking((8,), "attention", ratio=0.4, temperature=0.01)
    hidden = torch.stack([masking.draw_masks([coarsest])[0][0] for _ in range(20)]).mean(0)[0, 0]
    assert hidden[:, :7].mean() > 0.8
    assert hidden[:, 9:].mean() < 0.02


def test_masks_follow_the_seed_and_change_from_call_to_call():
    masking, maps = FeatureMasking(CHANNELS, "random", 0.3), features()
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append([masking.draw_masks(maps)[0][-1] for _ in range(2)])
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[0][1])


def test_no_masking_passes_everything():
    masking, maps = NoMasking(CHANNELS), features()
    (masks,) = masking.draw_masks(maps)
    assert all((m == 0).all() for m in masks)
    assert masking(maps, masks) is maps


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategy", "blok"),
        ("ratio", 0.0),
        ("ratio", 1.0),
        ("block_size", 0),
        ("temperature", 0.0),
        ("token", "mean"),
        ("inference", "all"),
        ("complements", 1),
        ("block_size", None),
        ("temperature", None),
    ],
)
def test_wrong_values_are_named(key, value):
    strategy = {"block_size": "block", "temperature": "attention"}.get(key, "random")
    with pytest.raises(ValueError, match=rf"^{key}={value}: "):
        FeatureMasking(CHANNELS, **{"strategy": strategy, "ratio": 0.3, key: value})
