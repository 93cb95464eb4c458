"""Labels of variants: the user's words, and only what differs."""

import pytest
from fake_runs import fake_result, fake_run

from anomalib_rd.errors import UserError
from anomalib_rd.results.runs_table import load_runs
from anomalib_rd.results.statistics import choose_baselines
from anomalib_rd.results.variants import (
    matching_labels,
    shared_words,
    short_labels,
    variant_labels,
)

NONE = {"model.masking": {"_target_": "anomalib_rd.networks.NoMasking"}}
RANDOM = {"model.masking": {"_target_": "anomalib_rd.networks.Masking", "ratio": 0.1}}
MORE = {"model.masking": {"_target_": "anomalib_rd.networks.Masking", "ratio": 0.5}}


def record(config, **choices):
    chosen = {name.replace("__", "/"): value for name, value in choices.items()}
    return fake_result(config=config, choices={"model": "rd4ad", **chosen})


def labels(*records):
    return [label.removeprefix("rd4ad resnet18").strip() for label in variant_labels(records)]


def test_choice_as_typed():
    off, on = record(NONE, model__masking="none"), record(RANDOM, model__masking="random")
    assert labels(off, on) == ["masking=none", "masking=random"]


def test_differences_within_a_choice():
    off, on = record(NONE, model__masking="none"), record(RANDOM, model__masking="random")
    more = record(MORE, model__masking="random")
    assert labels(off, on, more) == [
        "masking=none",
        "masking=random ratio=0.1",
        "masking=random ratio=0.5",
    ]


def test_key_outside_of_the_choice():
    off = record(NONE | {"optimizer.lr": 0.1}, model__masking="none")
    on = record(RANDOM | {"optimizer.lr": 0.2}, model__masking="random")
    assert set(labels(off, on)[0].split()) == {"masking=none", "lr=0.1"}


def test_equal_choices_are_one_variant():
    one, other = record(RANDOM, model__masking="random"), record(RANDOM, model__masking="mine")
    off = record(NONE, model__masking="none")
    assert labels(one, other, off) == ["masking=random", "masking=random", "masking=none"]


def test_choices_without_effect_are_omitted():
    one = record({"trainer.accelerator": "cpu"}, trainer="cpu", experiment="x")
    other = record({"trainer.accelerator": "cuda"}, trainer="gpu", experiment="y")
    assert labels(one, other) == ["", ""]


def test_records_without_choices_use_class_names():
    old = fake_result(config=NONE)
    assert labels(old, record(RANDOM, model__masking="random")) == [
        "masking=NoMasking",
        "masking=Masking",
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("none", ["a r.tv masking=none"]),
        ("masking=none", ["a r.tv masking=none"]),
        ("model/masking=none", ["a r.tv masking=none"]),
        ("model.masking=none", ["a r.tv masking=none"]),
        ("random ratio=0.5", ["a r.tv masking=random ratio=0.5"]),
        ("0.5", ["a r.tv masking=random ratio=0.5"]),
        ("model=b", ["b r.tv"]),
        ("b", ["b r.tv"]),
        ("other/thing=none", []),
        ("", []),
        ("nobody", []),
    ],
)
def test_matching_labels(name, found):
    known = ["a r.tv masking=none", "a r.tv masking=random ratio=0.5", "b r.tv"]
    assert matching_labels(known, name) == found


def test_baseline_as_typed(tmp_path):
    for name, config in (("none", NONE), ("random", RANDOM)):
        choices = {"model/masking": name}
        fake_run(tmp_path / name, config=config, choices=choices)
    runs = load_runs([tmp_path])
    for name in ("random", "model/masking=random", "rd4ad resnet18 masking=random"):
        assert choose_baselines(runs, name) == {"mvtec": "rd4ad resnet18 masking=random"}
    with pytest.raises(UserError, match="masking=none; masking=random"):
        choose_baselines(runs, "resnet18")


def test_short_labels():
    known = ["a r x=1", "a r x=2 y=3"]
    assert list(short_labels(known).values()) == ["x=1", "x=2 y=3"]
    assert shared_words(known) == ["a", "r"]
    assert short_labels(["a r", "a r x=1"]) == {"a r": "a", "a r x=1": "x=1"}
    # Values with the same words in another order.
    assert list(short_labels(["a x=p q", "a x=q p"]).values()) == ["x=p q", "x=q p"]
    same = ["a x=b c x=b", "a x=b x=b c"]
    assert list(short_labels(same).values()) == same
