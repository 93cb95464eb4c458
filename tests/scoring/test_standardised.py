"""Scores standardised by normal images' maps, against NumPy."""

import numpy as np
import pytest
import torch

from anomalib_rd.errors import UserError
from anomalib_rd.scoring import AnomalyScorer, StandardisedScorer

SIZE = (24, 32)


def maps(count, seed=0):
    return torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(seed))


def test_before_it_has_seen_normal_images_it_scores_as_rd4ad():
    assert torch.equal(
        StandardisedScorer(SIZE).postprocess(maps(3)).scores,
        AnomalyScorer().postprocess(maps(3)).scores,
    )


def test_the_score_is_the_highest_standardised_value_and_the_map_rd4ads():
    scorer, normal, other = StandardisedScorer(SIZE, sigma=0), maps(7), maps(4, seed=1)
    scorer.fit(normal.split(3))
    std = normal.numpy().astype(np.float64).std(0, ddof=1)
    z = (other.numpy() - normal.numpy().mean(0)) / (std + std.mean())
    found = scorer.postprocess(other)
    assert torch.equal(found.maps, other)
    np.testing.assert_allclose(found.scores, z.max((1, 2)), rtol=1e-5)


def test_a_place_where_normal_images_differ_counts_less():
    normal, defect = torch.full((6, *SIZE), 0.5), torch.full((2, *SIZE), 0.5)
    normal[:, 5, 5] = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.7])
    normal[:, 20, 20] = torch.tensor([0.49, 0.51, 0.49, 0.51, 0.49, 0.51])
    defect[0, 5, 5] = defect[1, 20, 20] = 0.9
    scorer = StandardisedScorer(SIZE, sigma=0)
    scorer.fit([normal])
    unruly, steady = scorer.postprocess(defect).scores
    assert steady > 10 * unruly
    assert len(set(AnomalyScorer(sigma=0).postprocess(defect).scores.tolist())) == 1


def test_what_it_has_learnt_is_in_its_state():
    scorer, other = StandardisedScorer(SIZE), StandardisedScorer(SIZE)
    scorer.fit([maps(5)])
    other.load_state_dict(scorer.state_dict())
    assert torch.equal(other.postprocess(maps(2, 1)).scores, scorer.postprocess(maps(2, 1)).scores)


@pytest.mark.parametrize(
    ("normal", "word"), [(maps(1), "got 1"), (maps(1).repeat(3, 1, 1), "equal")]
)
def test_too_few_or_equal_normal_images_are_refused(normal, word):
    with pytest.raises(UserError, match=word):
        StandardisedScorer(SIZE).fit([normal])
