"""The threshold of a run: verdict, normalised score, and its file."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_rd.errors import UserError
from anomalib_rd.results.threshold import Threshold, read_threshold, write_threshold

QUANTILE = Threshold(
    kind="quantile",
    image=2.0,
    pixel=2.0,
    spread=0.5,
    source="held-out images",
    normal_images=40,
    false_positive_rate=2 / 41,
    checkpoint="ab",
)
SCORES = st.floats(-1e6, 1e6)


def test_threshold_itself_is_anomalous():
    assert QUANTILE.verdict(2.0) == "anomalous"
    assert QUANTILE.verdict(math.nextafter(2.0, 0)) == "normal"


@given(SCORES)
def test_normalised_is_the_stated_formula(score):
    exponent = (2.0 - score) / 0.5
    formula = 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0
    assert QUANTILE.normalised(score) == pytest.approx(formula, abs=1e-12)


@given(SCORES, SCORES)
def test_normalised_keeps_order_and_verdict(a, b):
    low, high = sorted((a, b))
    assert 0 <= QUANTILE.normalised(low) <= QUANTILE.normalised(high) <= 1
    assert (QUANTILE.normalised(a) >= 0.5) or (QUANTILE.verdict(a) == "normal")


def test_normalised_of_images_without_spread_is_a_step():
    flat = Threshold("quantile", image=1.0, pixel=1.0, spread=0.0)
    assert [flat.normalised(score) for score in (0.9, 1.0, 1.1)] == [0.0, 0.5, 1.0]
    assert Threshold("given", image=1.0, pixel=1.0).normalised(1.0) is None


def test_file_gives_it_back_to_the_bit(tmp_path):
    exact = Threshold("quantile", image=math.nextafter(0.1, 1), pixel=1 / 3, spread=0.2)
    write_threshold(tmp_path, exact)
    assert read_threshold(tmp_path) == exact
    write_threshold(tmp_path, None)
    assert read_threshold(tmp_path) is None


@pytest.mark.parametrize("change", [{"image": None}, {"image": "high"}, {"pixel": "NaN"}])
def test_damaged_file_is_said(tmp_path, change):
    write_threshold(tmp_path, QUANTILE)
    path = tmp_path / "threshold.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"threshold\.json: no threshold"):
        read_threshold(tmp_path)


def test_words_say_what_is_promised_and_what_is_not():
    assert str(QUANTILE) == ("2, reached by 4.9 % of normal images as the 40 held-out images")
    seen = Threshold(**{**QUANTILE.__dict__, "source": "training images", "optimistic": True})
    assert str(seen).endswith("of new ones more, for the student has seen these")
    assert str(QUANTILE.moved(3.5)) == "3.5, as given"
    f1 = Threshold("f1max", image=1, pixel=1, normal_images=4, defect_images=5)
    assert "best F1 on 4 normal and 5 synthetic" in str(f1)
