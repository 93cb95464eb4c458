"""Quantile thresholds keep their promised false positive rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_rd.results.threshold import conformal_threshold


@pytest.mark.parametrize(("count", "rate"), [(5, 0.05), (19, 0.05), (20, 0.05), (40, 0.1)])
def test_new_normal_images_are_flagged_as_often_as_promised(count, rate):
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
def test_no_more_of_the_images_themselves_than_the_rate(scores, rate):
    """Ties too: at most so many of the images reach the threshold."""
    threshold, promised = conformal_threshold(scores, rate)
    reached = sum(score >= threshold for score in scores)
    assert reached <= promised * (len(scores) + 1) - 1 + 1e-9
    assert threshold > min(scores)
    assert promised <= max(rate, 1 / (len(scores) + 1)) + 1e-9


def test_a_higher_rate_is_a_lower_threshold():
    scores = np.random.default_rng(1).normal(size=99)
    found = [conformal_threshold(scores, rate)[0] for rate in (0.01, 0.05, 0.2, 0.5)]
    assert found == sorted(found, reverse=True)
    assert sum(scores >= found[2]) == 19  # with the new image 20 of 100
