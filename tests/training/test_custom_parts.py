"""Custom parts that do not fit are refused before the training."""

import pytest
import torch
from torch import nn

from anomalib_rd.errors import UserError
from anomalib_rd.training.train import train


class Vector(nn.Module):
    def forward(self, features, restored):
        return torch.stack([part.mean() for part in restored])


class Constant(nn.Module):
    def forward(self, *parts):
        return torch.tensor(1.0)


class OfOne(nn.Module):
    def forward(self, features):
        return features


class OfThree(nn.Module):
    def forward(self, features, restored, masks):
        return restored[0].mean()


class Fitting(nn.Module):
    def forward(self, features, restored):
        return sum((f - r).square().mean() for f, r in zip(features, restored, strict=True))


@pytest.fixture
def run(compose_config, tmp_path, mvtec_root):
    def start(*overrides):
        words = (
            "trainer.max_epochs=1",
            "report.heatmaps=0",
            "report.gallery=0",
            f"data.root={mvtec_root}",
        )
        train(compose_config(*words, f"run_dir={tmp_path / 'run'}", *overrides))
        return tmp_path / "run"

    start.folder = tmp_path / "run"
    return start


@pytest.mark.parametrize(
    ("word", "key"),
    [
        (f"loss._target_={__name__}.{name}", "loss")
        for name in ("Vector", "Constant", "OfOne", "OfThree")
    ]
    + [
        ("data.transform={_target_: torchvision.transforms.v2.CenterCrop, size: 32}", "transform"),
        (
            "data.transform={_target_: torch.nn.Linear, in_features: 3, out_features: 1}",
            "transform",
        ),
    ],
)
def test_custom_parts_that_do_not_fit_are_refused_before_the_training(run, word, key):
    with pytest.raises(UserError) as info:
        run(word)
    assert key in str(info.value) and "\n" not in str(info.value)
    assert not run.folder.exists() or not list(run.folder.rglob("*.ckpt"))


def test_custom_parts_that_fit_are_trained(run):
    folder = run(
        f"loss._target_={__name__}.Fitting",
        "data.transform={_target_: torchvision.transforms.v2.RandomHorizontalFlip}",
    )
    assert (folder / "result.json").is_file()
