"""The threshold of a run: quantile, verdict, normalised score, serialisation."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_rd.errors import UserError
from anomalib_rd.results.threshold import Threshold, conformal_threshold, parse_threshold

QUANTILE = Threshold(
    kind="quantile",
    image=2.0,
    pixel=2.0,
    score_std=0.5,
    source="held-out images",
    normal_images=40,
    false_positive_rate=2 / 41,
)
SCORES = st.floats(-1e6, 1e6)


def test_score_equal_to_the_threshold_is_anomalous():
    assert QUANTILE.verdict(2.0) == "anomalous"
    assert QUANTILE.verdict(math.nextafter(2.0, 0)) == "normal"


@given(SCORES)
def test_normalised_is_the_documented_formula(score):
    exponent = (2.0 - score) / 0.5
    formula = 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0
    assert QUANTILE.normalised(score) == pytest.approx(formula, abs=1e-12)


@given(SCORES, SCORES)
def test_normalised_keeps_order_and_verdict(a, b):
    low, high = sorted((a, b))
    assert 0 <= QUANTILE.normalised(low) <= QUANTILE.normalised(high) <= 1
    assert (QUANTILE.normalised(a) >= 0.5) or (QUANTILE.verdict(a) == "normal")


def test_normalised_without_standard_deviation_is_a_step():
    flat = Threshold("quantile", image=1.0, pixel=1.0, score_std=0.0)
    assert [flat.normalised(score) for score in (0.9, 1.0, 1.1)] == [0.0, 0.5, 1.0]
    assert Threshold("given", image=1.0, pixel=1.0).normalised(1.0) is None


def test_saved_threshold_is_read_back_exactly():
    exact = Threshold("quantile", image=math.nextafter(0.1, 1), pixel=1 / 3, score_std=0.2)
    exact = replace(exact, normal_scores=(0.1, 1 / 3), normal_peaks=(2 / 3, 0.7))
    saved = json.loads(json.dumps(asdict(exact)))
    assert parse_threshold(saved | {"of_a_later_version": 1}, Path("last.ckpt")) == exact
    assert parse_threshold(None, Path("last.ckpt")) is None


@pytest.mark.parametrize(
    "change", [{"image": None}, {"image": "high"}, {"pixel": math.nan}, {"normal_scores": ["x"]}]
)
def test_damaged_threshold_is_named(change):
    with pytest.raises(UserError, match=r"last\.ckpt"):
        parse_threshold(asdict(QUANTILE) | change, Path("last.ckpt"))
    with pytest.raises(UserError, match=r"last\.ckpt"):
        parse_threshold(["quantile"], Path("last.ckpt"))


def test_text_has_value_rate_and_images():
    assert "at most 4.9 % of" in str(QUANTILE) and "40 held-out images" in str(QUANTILE)
    optimistic = replace(QUANTILE, source="training images", optimistic=True)
    assert "4.9 % of the 40 training images" in str(optimistic) and "most" not in str(optimistic)
    assert str(QUANTILE.with_given_value(3.5)) == "3.5, as given"
    f1 = Threshold("f1max", image=1, pixel=1, normal_images=4, defect_images=5)
    assert "F1 on 4 normal and 5 synthetic" in str(f1)


def test_at_rate_uses_the_saved_scores():
    scores = tuple(float(number) for number in range(19))
    saved = replace(QUANTILE, normal_scores=scores, normal_images=19)
    wider = saved.at_rate(0.2)
    assert wider.image == wider.pixel == math.nextafter(15, 16)
    assert (wider.kind, wider.false_positive_rate) == ("quantile", pytest.approx(0.2))
    # The lowest rate of 19 scores is 1 / 20.
    assert saved.at_rate(0.05).image == math.nextafter(18, 19)
    with pytest.raises(UserError, match=r" 0\.04: .* 24 .* 19.* 0\.05"):
        saved.at_rate(0.04)
    other_scale = replace(saved, normal_peaks=tuple(10 * score for score in scores))
    assert other_scale.at_rate(0.2).pixel == math.nextafter(150, 151)
    f1max = replace(saved, kind="f1max", defect_images=4, false_positive_rate=None)
    assert f1max.at_rate(0.2) == wider


@pytest.mark.parametrize("rate", [0, 1, -1, math.nan])
def test_rate_must_be_between_0_and_1(rate):
    with pytest.raises(UserError, match="rate"):
        replace(QUANTILE, normal_scores=(1.0,) * 40).at_rate(rate)


def test_at_rate_without_scores_is_refused():
    with pytest.raises(UserError, match=r" 0\.05: .* 19 .* 0"):
        QUANTILE.at_rate(0.05)


@pytest.mark.parametrize(("count", "rate"), [(5, 0.05), (19, 0.05), (20, 0.05), (40, 0.1)])
def test_false_positive_rate_of_new_images(count, rate):
    """Over many draws of a run's images and a new one: conformal prediction is exact."""
    rng = np.random.default_rng(0)
    flagged, promises = [], set()
    for _ in range(4000):
        threshold, promised = conformal_threshold(rng.gumbel(size=count), rate)
        promises.add(promised)
        flagged.append((rng.gumbel(size=50) >= threshold).mean())
    (promised,) = promises
    assert promised <= max(rate, 1 / (count + 1)) + 1e-12
    # Standard error of the mean of the 4000.
    assert np.mean(flagged) == pytest.approx(promised, abs=4 * np.std(flagged) / 4000**0.5)


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=60),
    st.floats(0.001, 0.999),
)
def test_false_positive_rate_of_the_images_themselves(scores, rate):
    """At most the promised share of the images reaches the threshold, with ties too."""
    threshold, promised = conformal_threshold(scores, rate)
    reached = sum(score >= threshold for score in scores)
    assert reached <= promised * (len(scores) + 1) - 1 + 1e-9
    assert threshold > min(scores)
    assert promised <= max(rate, 1 / (len(scores) + 1)) + 1e-9


def test_higher_rate_gives_a_lower_threshold():
    scores = np.random.default_rng(1).normal(size=99)
    found = [conformal_threshold(scores, rate)[0] for rate in (0.01, 0.05, 0.2, 0.5)]
    assert found == sorted(found, reverse=True)
    assert sum(scores >= found[2]) == 19  # with the new image 20 of 100
