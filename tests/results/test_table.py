import math

import numpy as np
import pandas as pd
import pytest
from fake_runs import METRICS, OBJECTS, TEXTURES, fake_result, fake_run

from anomalib_rd.results.runs_table import (
    category_table,
    load_runs,
    summarise,
    to_long_format,
    write_csv,
)
from anomalib_rd.results.variants import label_order, variant_labels


def cell(table, category, metric="image_auroc", **where):
    chosen = (table["category"] == category) & (table["metric"] == metric)
    for column, value in where.items():
        chosen &= table[column] == value
    (row,) = table[chosen].to_dict("records")
    return row


def labels(*configs, **keywords):
    return variant_labels([fake_result(config=config, **keywords) for config in configs])


def test_run_is_a_row(tmp_path):
    fake_run(tmp_path / "a", "carpet", 2, config={"sweep": "night"}, metrics={"aupro": math.nan})
    (row,) = load_runs([tmp_path]).to_dict("records")
    expected = {
        "run": str(tmp_path / "a"),
        "sweep": "night",
        "data": "mvtec",
        "category": "carpet",
        "group": "texture",
        "model": "rd4ad",
        "teacher": "resnet18",
        "variant": "rd4ad resnet18",
        "seed": 2,
        "epochs": 5,
        "image_size": "256x256",
        "image_auroc": 0.98,
        "total_s": 12.5,
        "test_images_per_s": 41.5,
    }
    assert {key: row[key] for key in expected} == expected
    assert math.isnan(row["aupro"])


def test_oracle_has_its_own_columns(tmp_path):
    fake_run(tmp_path / "a", oracle={"epoch": 3, "image_auroc": 0.999})
    runs = load_runs([tmp_path])
    assert runs["oracle_image_auroc"][0] == 0.999
    assert runs["oracle_epoch"][0] == 3
    assert runs["image_auroc"][0] == METRICS["image_auroc"]
    assert not category_table(runs)["metric"].str.startswith("oracle").any()


def test_mean_and_std_computed_by_hand(tmp_path):
    values = {
        ("carpet", 0): 0.90,
        ("carpet", 1): 0.94,
        ("bottle", 0): 0.80,
        ("bottle", 1): 0.90,
        ("cable", 0): 1.00,
        ("cable", 1): 0.98,
    }
    for (category, seed), value in values.items():
        metrics = {"image_auroc": value}
        fake_run(tmp_path / f"{category}{seed}", category, seed, metrics=metrics)
    table = category_table(load_runs([tmp_path]))
    carpet = cell(table, "carpet")
    assert carpet["mean"] == pytest.approx(0.92)
    assert carpet["std"] == pytest.approx(0.04 / math.sqrt(2))  # of two values: |a - b| / sqrt(2)
    assert carpet["n_seeds"] == 2
    # Objects: seed 0 (0.80 + 1.00) / 2 = 0.90, seed 1 (0.90 + 0.98) / 2 = 0.94.
    objects = cell(table, "mean objects")
    assert objects["mean"] == pytest.approx(0.92)
    assert objects["std"] == pytest.approx(0.04 / math.sqrt(2))
    # All: seed 0 2.70 / 3 = 0.90, seed 1 2.82 / 3 = 0.94.
    everything = cell(table, "mean all")
    assert everything["mean"] == pytest.approx(0.92)
    assert everything["std"] == pytest.approx(0.04 / math.sqrt(2))
    assert everything["n_categories"] == everything["of_categories"] == 3
    order = table["category"].drop_duplicates().tolist()
    assert order == ["carpet", "bottle", "cable", "mean textures", "mean objects", "mean all"]


def test_one_seed_has_no_std():
    row = summarise(np.array([[0.5, 0.7]]))
    assert row["mean"] == pytest.approx(0.6)
    assert math.isnan(row["std"])
    assert row["n_seeds"] == 1


def test_undefined_category_is_omitted_and_counted():
    row = summarise(np.array([[0.5, np.nan, 0.7], [0.7, np.nan, 0.9]]))
    assert row["mean"] == pytest.approx(0.7)
    assert (row["n_categories"], row["of_categories"], row["n_seeds"]) == (2, 3, 2)


def test_incomplete_seed_is_omitted_from_the_mean():
    # The hard category was run with seed 0 only: seed 1's easy one shall not lift the mean.
    row = summarise(np.array([[0.5, 0.9], [np.nan, 0.99]]))
    assert row["mean"] == pytest.approx(0.7)
    assert row["n_seeds"] == 1


def test_mean_without_a_complete_seed():
    row = summarise(np.array([[0.5, np.nan], [np.nan, 0.9]]))
    assert row["mean"] == pytest.approx(0.7)
    assert row["n_seeds"] == 0
    assert math.isnan(row["std"])


def test_nothing_defined_is_nan_not_zero():
    row = summarise(np.array([[np.nan, np.nan]]))
    assert math.isnan(row["mean"])
    assert row["n_categories"] == 0


def test_repeated_run_counts_once(tmp_path):
    fake_run(tmp_path / "1", metrics={"image_auroc": 0.1})
    fake_run(tmp_path / "2", metrics={"image_auroc": 0.9})
    row = cell(category_table(load_runs([tmp_path])), "bottle")
    assert row["mean"] == pytest.approx(0.9)
    assert row["n_seeds"] == 1


def test_variants_and_data_sets_are_separate(tmp_path):
    fake_run(tmp_path / "1", config={"optimizer.lr": 0.1}, metrics={"image_auroc": 0.1})
    fake_run(tmp_path / "2", config={"optimizer.lr": 0.2}, metrics={"image_auroc": 0.2})
    fake_run(tmp_path / "3", data="demo", metrics={"image_auroc": 0.3})
    table = category_table(load_runs([tmp_path]))
    assert cell(table, "bottle", variant="rd4ad resnet18 lr=0.1")["mean"] == pytest.approx(0.1)
    assert cell(table, "bottle", variant="rd4ad resnet18 lr=0.2")["mean"] == pytest.approx(0.2)
    assert cell(table, "bottle", data="demo", variant="rd4ad resnet18")["mean"] == pytest.approx(
        0.3
    )


def test_seed_category_paths_and_device_make_no_variant():
    one = fake_result("bottle", 0)
    other = fake_result("carpet", 1)
    other["config"] |= {"name": "x", "sweep": "y", "logger": {"project": "z"}, "run_dir": "/a/b"}
    other["config"]["data"]["root"] = "/elsewhere"
    one["config"]["trainer"] |= {"accelerator": "cpu", "devices": 1}
    other["config"]["trainer"] |= {"accelerator": "gpu", "devices": [3], "default_root_dir": "/x"}
    last = {"_target_": "anomalib_rd.training.checkpoints.LastCheckpoint", "every_s": 30}
    other["config"]["callbacks"] = {"checkpoint": last | {"dirpath": "/a/b/checkpoints"}}
    one["config"]["callbacks"] = {"checkpoint": last | {"dirpath": "/c/checkpoints"}}
    assert variant_labels([one, other]) == ["rd4ad resnet18"] * 2


def test_caches_make_no_variant():
    caches = {"speed.image_cache": False, "speed.feature_cache": "off"}
    other = {"speed.image_cache": True, "speed.feature_cache": "device"}
    assert labels(caches, other) == ["rd4ad resnet18"] * 2
    rounding = labels({"speed.channels_last": True}, {"speed.channels_last": False})
    assert rounding[0] != rounding[1]


def test_label_has_keys_that_change_the_result():
    held_out = {"validation.kind": "synthetic"}
    kinds = [{"threshold.kind": kind, **held_out} for kind in ("quantile", "f1max")]
    assert labels(*kinds) == [
        "rd4ad resnet18 threshold.kind=quantile",
        "rd4ad resnet18 threshold.kind=f1max",
    ]
    rates = [{"threshold": {"kind": "quantile", "false_positive_rate": r}} for r in (0.01, 0.05)]
    assert labels(*rates)[0] == "rd4ad resnet18 false_positive_rate=0.01"
    assert labels({}, {"trainer.devices": 4})[1] == "rd4ad resnet18 devices=4"
    early = {"callbacks.early_stopping.patience": 3}
    bar = {"callbacks.bar._target_": "lightning.pytorch.callbacks.RichProgressBar"}
    assert labels({}, bar, early) == [*["rd4ad resnet18"] * 2, "rd4ad resnet18 patience=3"]
    swa = {"callbacks.swa._target_": "lightning.pytorch.callbacks.StochasticWeightAveraging"}
    assert labels({}, swa) == ["rd4ad resnet18", "rd4ad resnet18 swa=StochasticWeightAveraging"]


def fingerprinted(root, fingerprint, category="bottle", seed=0):
    record = fake_result(category, seed, config={"data.root": root})
    return record | {"data": record["data"] | {"fingerprint": fingerprint}}


def test_different_images_make_a_variant():
    same = [fingerprinted("/a", "sha-1"), fingerprinted("/b", "sha-1", seed=1)]
    assert variant_labels(same) == ["rd4ad resnet18"] * 2
    lines = [fingerprinted("/line_1", "sha-1"), fingerprinted("/line_2", "sha-2")]
    lines += [fingerprinted("/line_1", "sha-3", "pill"), fingerprinted("/line_2", "sha-4", "pill")]
    assert variant_labels(lines) == [f"rd4ad resnet18 root=line_{n}" for n in (1, 2, 1, 2)]
    changed = [fingerprinted("/a", "1234567890"), fingerprinted("/a", "abcdef0123")]
    assert variant_labels(changed) == [
        "rd4ad resnet18" + suffix for suffix in ("", " fingerprint=abcdef01")
    ]


def test_label_order():
    expected = ["a ratio=null", "a ratio=0.5", "a ratio=0.75", "a ratio=10", "b part=NoMasking"]
    expected += ["b part=Block", "resnet18", "resnet50"]
    shuffled = expected[::-1]
    assert sorted(shuffled, key=label_order) == expected


def test_runs_are_sorted_by_data_variant_and_path(tmp_path):
    ratios = {"x": 0.5, "y": 0.1, "z": 0.5}
    for seed, (name, ratio) in enumerate(ratios.items()):
        fake_run(tmp_path / name, seed=seed, config={"model.masking.ratio": ratio})
    fake_run(tmp_path / "v", data="demo")
    runs = load_runs([tmp_path])
    assert [path.rpartition("/")[2] for path in runs["run"]] == ["v", "y", "x", "z"]


def test_number_named_path_makes_a_variant():
    assert labels({"model.drop_path": 0.1}, {"model.drop_path": 0.2}) == [
        "rd4ad resnet18 drop_path=0.1",
        "rd4ad resnet18 drop_path=0.2",
    ]


def test_keys_are_shortened_to_a_unique_ending():
    a = {"model.masking.ratio": 0.3, "model.other.ratio": 1, "trainer.max_epochs": 5}
    b = a | {"model.masking.ratio": 0.5, "trainer.max_epochs": 9}
    assert labels(a, b) == [
        "rd4ad resnet18 masking.ratio=0.3 max_epochs=5",
        "rd4ad resnet18 masking.ratio=0.5 max_epochs=9",
    ]


def test_interpolated_key_appears_once():
    one, other = labels(
        {"data.default_epochs": 5, "trainer.max_epochs": 5},
        {"data.default_epochs": 9, "trainer.max_epochs": 9},
    )
    assert (one, other) == ("rd4ad resnet18 default_epochs=5", "rd4ad resnet18 default_epochs=9")


def test_settings_of_an_alternative_are_omitted():
    off = {"model.part": {"_target_": "anomalib_rd.networks.NoMasking"}}
    on = {"model.part": {"_target_": "anomalib_rd.networks.Masking", "block": 4, "token": "zero"}}
    assert labels(off, on) == ["rd4ad resnet18 part=NoMasking", "rd4ad resnet18 part=Masking"]


def test_key_that_only_one_config_has():
    assert labels({}, {"model.extra": True}) == ["rd4ad resnet18", "rd4ad resnet18 extra=true"]


def test_equal_labels_mean_equal_configs():
    targets = [{"loss._target_": "a.Loss"}, {"loss._target_": "b.Loss"}]
    weights = [{"model.weights": "/x/w.pth"}, {"model.weights": "/y/w.pth"}]
    kinds = [{"model.k": "1"}, {"model.k": 1}]
    for one, other in (targets, weights, kinds):
        first, second = labels(one, other)
        assert first != second


def test_paths_are_shortened_to_their_name():
    one, other = labels({"model.file": "/x/a.pth"}, {"model.file": "/x/b.pth"})
    assert (one, other) == ("rd4ad resnet18 file=a.pth", "rd4ad resnet18 file=b.pth")


def test_csv_round_trip(tmp_path):
    for category in (TEXTURES[0], OBJECTS[0]):
        fake_run(tmp_path / category, category, metrics={"pixel_auroc": math.nan})
    runs = load_runs([tmp_path])
    long = to_long_format(runs)
    assert len(long) == 2 * len(METRICS)
    path = write_csv(long, tmp_path / "summary.csv")
    back = pd.read_csv(path)
    chosen = back[(back["category"] == "bottle") & (back["metric"] == "aupro")]
    assert chosen["value"].item() == pytest.approx(METRICS["aupro"])
    assert back[back["metric"] == "pixel_auroc"]["value"].isna().all()
    means = pd.read_csv(write_csv(category_table(runs), tmp_path / "means.csv"))
    assert cell(means, "mean all", "aupro")["mean"] == pytest.approx(METRICS["aupro"])
