"""Held-out images and their synthetic defects."""

import pytest
import torch
from image_trees import mvtec_category

from anomalib_rd.data import AnomalyDataModule, MVTecAD, Sample
from anomalib_rd.data.validation_split import SyntheticValidation, hold_out
from anomalib_rd.errors import UserError


@pytest.fixture
def samples(tmp_path):
    return [Sample(tmp_path / f"c/train/good/{i:03}.png", "c", "good", 0) for i in range(40)]


@pytest.mark.parametrize("count, share, held", [(40, 0.2, 8), (40, 0.5, 20), (9, 0.2, 4)])
def test_every_image_is_in_one_part(samples, tmp_path, count, share, held):
    parts = hold_out(samples[:count], tmp_path, share, seed=0)
    assert (len(parts.normal), len(parts.defect)) == (held // 2, held - held // 2)
    every = [*parts.train, *parts.normal, *parts.defect]
    assert len(every) == count and set(every) == set(samples[:count])
    assert parts.train == sorted(parts.train, key=lambda sample: sample.path)


def test_the_selection_depends_on_seed_and_relative_path_alone(samples, tmp_path):
    def selected(samples, root, seed=0):
        return [s.path.name for s in hold_out(samples, root, 0.2, seed).defect]

    elsewhere = tmp_path / "deeper"
    moved = [
        Sample(elsewhere / s.path.relative_to(tmp_path), s.category, s.defect, 0) for s in samples
    ]
    assert selected(samples, tmp_path) == selected(moved, elsewhere)
    assert sorted(selected(samples[::-1], tmp_path)) == selected(samples, tmp_path)
    assert selected(samples, tmp_path) != selected(samples, tmp_path, seed=1)


def test_too_few_images_and_invalid_fractions_are_errors(samples, tmp_path, one_line):
    with pytest.raises(UserError, match="7 normal training images") as info:
        hold_out(samples[:7], tmp_path, 0.2, 0)
    assert "validation.kind=null" in one_line(info)
    for share in (0, 0.6, -1):
        with pytest.raises(UserError, match=f"validation.fraction={share}:"):
            hold_out(samples, tmp_path, share, 0)


@pytest.fixture
def module(tmp_path):
    """A data module of ten training images."""
    mvtec_category(tmp_path / "bottle", train=10)

    def make(**options):
        source = MVTecAD(tmp_path)
        return AnomalyDataModule(source, "bottle", (64, 96), num_workers=0, **options)

    return make


def test_validation_shares_no_image_with_train_and_test(module):
    data = module(val="synthetic")
    train, val, test = (
        {sample.path for sample in part.samples}
        for part in (data.train_set, data.val_set, data.test_set)
    )
    assert len(train) == 6 and len(val) == 4 and not (train & val or train & test or val & test)
    assert train | val == {sample.path for sample in module().train_set.samples}
    # The fingerprint is of the data on disk: holding out changes nothing.
    assert data.split == module().split
    assert module().val_set is None


def test_items_do_not_depend_on_order_or_process(module):
    one, other = (module(val="synthetic").val_set for _ in range(2))
    assert [sample.label for sample in one.samples] == [0, 0, 1, 1]
    backwards = {i: other[i] for i in reversed(range(4))}
    for i in range(4):
        item = one[i]
        assert item["image"].shape == (3, 64, 96) and item["image"].dtype == torch.uint8
        assert item["mask"].shape == (64, 96) and item["mask"].dtype == torch.bool
        assert item["label"] == one.samples[i].label == bool(item["mask"].any())
        assert all(torch.equal(item[key], backwards[i][key]) for key in ("image", "mask"))
        assert torch.equal(item["image"], one[i]["image"])  # the second time too
    workers = module(val="synthetic", test_batch_size=1)
    workers.num_workers = 2
    for i, batch in enumerate(workers.val_dataloader()["val"]):
        assert torch.equal(batch["image"][0], one[i]["image"])


def test_the_defect_is_the_only_difference_to_the_file(module):
    data = module(val="synthetic")
    plain = {sample.path: i for i, sample in enumerate(module().train_set.samples)}
    for i, sample in enumerate(data.val_set.samples):
        item, file = data.val_set[i], module().train_set[plain[sample.path]]
        differs = (item["image"] != file["image"]).any(dim=0)
        assert not (differs & ~item["mask"]).any() and differs.any() == bool(sample.label)


def test_another_seed_makes_other_defects(module, tmp_path):
    held = hold_out(module().split.train, tmp_path, 0.4, 0)
    one, other = (SyntheticValidation(held, tmp_path, (64, 64), seed) for seed in (0, 1))
    assert not torch.equal(one[3]["image"], other[3]["image"])


def test_val_dataloader_has_the_requested_stages(module):
    assert set(module().val_dataloader()) == set()
    assert set(module(test_curve=True).val_dataloader()) == {"test_curve"}
    both = module(val="synthetic", test_curve=True).val_dataloader()
    assert list(both) == ["val", "test_curve"]  # Lightning knows them by their number
    assert len(both["val"].dataset) == 4


def test_an_unknown_kind(module, one_line):
    with pytest.raises(UserError) as info:
        module(val="real")
    assert "validation.kind=real" in one_line(info) and "synthetic" in one_line(info)
