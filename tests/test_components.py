"""Parts built from a config: own classes without Hydra, errors that name the config key."""

from functools import partial

import pytest

from anomalib_rd.components import build
from anomalib_rd.errors import UserError
from anomalib_rd.scoring import Tiling

MASKING = {
    "_target_": "anomalib_rd.networks.FeatureMasking",
    "_partial_": True,
    "strategy": "random",
    "ratio": 0.3,
}


def test_own_classes_are_built_or_partially_built():
    tiling = build({"_target_": "anomalib_rd.scoring.Tiling", "size": [64, 64]}, "model.tiling")
    assert isinstance(tiling, Tiling) and tiling.size == (64, 64)
    masking = build(MASKING, "model.masking")
    assert isinstance(masking, partial) and masking(channels=(4, 8)).ratio == 0.3
    assert build(None, "model.tiling") is None


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"ratio": 2}, r"model\.masking\.ratio=2: "),
        ({"ratio": "a"}, r"model\.masking: FeatureMasking: "),
        ({"rate": 0.1}, r"model\.masking: .*rate"),
    ],
)
def test_errors_of_a_class_name_the_key(change, start):
    with pytest.raises(UserError, match=f"^{start}"):
        build(MASKING | change, "model.masking")(channels=(4,))


def test_foreign_classes_need_trust():
    spec = {"_target_": "anomalib_rd.networks.Teacher", "name": "resnet18"}
    with pytest.raises(UserError, match=r"^model\.student=anomalib_rd\.networks\.Teacher: "):
        build(spec, "model.student", trust=False)
