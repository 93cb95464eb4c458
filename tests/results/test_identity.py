"""Significant and ignored config keys, and messages about them."""

import re
from collections import defaultdict

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from anomalib_rd.cli.config import conf_dir, register_resolvers
from anomalib_rd.errors import UserError
from anomalib_rd.results.identity import (
    IGNORED_CALLBACKS,
    IGNORED_KEYS,
    config_digest,
    find_differences,
    number_of_devices,
    require_same_run,
    significant_items,
)

CONFIG = {
    "seed": 0,
    "name": "a",
    "run_dir": "/runs/a",
    "report": {"heatmaps": 8},
    "data": {"category": "bottle", "num_workers": None, "root": "${oc.env:ROOT,data}"},
    "model": {"masking": {"ratio": 0.3}, "sizes": [256, 256]},
    "speed": {"image_cache": True, "precision": "32-true"},
    "trainer": {"max_epochs": 4, "default_root_dir": "${run_dir}"},
    "logger": {"wandb": {"api_key": "0123"}},
    "scheduler": {},
}
IGNORED = [
    "name=b",
    "run_dir=/elsewhere",
    "report.heatmaps=0",
    "logger.csv.save_dir=x",
    "data.num_workers=4",
    "speed.image_cache=false",
]
SIGNIFICANT = [
    "seed=1",
    "data.category=pill",
    "model.masking.ratio=0.4",
    "model.sizes=[128,128]",
    "speed.precision=bf16-mixed",
    "trainer.max_epochs=5",
    "scheduler.T_max=4",
]


def config(*words):
    return OmegaConf.merge(OmegaConf.create(CONFIG), OmegaConf.from_dotlist(list(words)))


def plain(cfg):
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("word", IGNORED)
def test_ignored_keys_give_the_same_digest(word):
    assert config_digest(config(word)) == config_digest(config())
    assert find_differences(plain(config()), plain(config(word))) == []


@pytest.mark.parametrize("word", SIGNIFICANT)
def test_other_keys_give_another_digest(word):
    assert config_digest(config(word)) != config_digest(config())
    ((key, saved, current),) = find_differences(plain(config()), plain(config(word)))
    assert key == word.split("=")[0] and saved != current
    with pytest.raises(UserError, match=f"{key}: .*{re.escape(saved)}.*{re.escape(current)}"):
        require_same_run("folder", config(word), plain(config()), config_digest(config()))


def test_message_has_three_keys_with_both_values_and_counts_the_rest(tmp_path):
    words = ["seed=1", "data.category=pill", "model.masking.ratio=0.4", "trainer.max_epochs=5"]
    with pytest.raises(UserError) as refused:
        require_same_run(tmp_path, config(*words), plain(config()), None)
    message = str(refused.value)
    assert message.startswith(str(tmp_path)) and "hydra.run.dir" in message
    for key, saved, current in (
        ("seed", "0", "1"),
        ("data.category", '"bottle"', '"pill"'),
        ("model.masking.ratio", "0.3", "0.4"),
    ):
        assert f"{key}: saved {saved}, now {current}" in message
    assert "1 more" in message
    assert "max_epochs" not in message


def test_data_folder_from_the_environment_is_compared_as_written(monkeypatch, tmp_path):
    kept, digest = plain(config()), config_digest(config())
    monkeypatch.setenv("ROOT", "/scratch/job-17")
    require_same_run(tmp_path, config(), kept, digest)
    # Without a digest the values are compared.
    with pytest.raises(UserError, match=r"data\.root"):
        require_same_run(tmp_path, config(), kept, None)


def test_interpolations_are_compared_by_value(tmp_path):
    other = config("trainer.max_epochs=${model.epochs}", "model.epochs=4")
    kept = plain(other)
    written_out = config("trainer.max_epochs=4", "model.epochs=4")
    assert config_digest(other) == config_digest(written_out)
    require_same_run(tmp_path, written_out, kept, None)


def test_other_values_from_the_environment_are_resolved(monkeypatch):
    cfg = config("optimizer.lr=${oc.env:LR}", "model.sizes=['${oc.env:LR}']")
    digests = set()
    for value in ("0.1", "0.2"):
        monkeypatch.setenv("LR", value)
        digests.add(config_digest(cfg))
    monkeypatch.delenv("LR")  # not resolvable: compared as written
    assert len(digests | {config_digest(cfg)}) == 3


def test_interpolation_of_an_ignored_key_is_ignored():
    words = ["optimizer.log=${run_dir}/log", "model.label=${name}"]
    assert config_digest(config(*words)) == config_digest(config(*words, "run_dir=/b", "name=b"))


def test_missing_key_equals_null():
    older = plain(config())
    assert find_differences(older, plain(config("metrics.max_bins=null"))) == []
    (difference,) = find_differences(older, plain(config("metrics.max_bins=100")))
    assert difference == ("metrics.max_bins", "null", "100")


CHECKPOINT, BAR, SWA = (
    "anomalib_rd.training.checkpoints.LastCheckpoint",
    "lightning.pytorch.callbacks.RichProgressBar",
    "lightning.pytorch.callbacks.StochasticWeightAveraging",
)


@pytest.mark.parametrize(
    "callback",
    [
        {"_target_": BAR, "leave": True, "theme": {"description": "red"}},
        {"_target_": "lightning.pytorch.callbacks.TQDMProgressBar", "refresh_rate": 2},
        {"_target_": CHECKPOINT, "every_s": 3, "dirpath": "/a", "filename": "last"},
    ],
)
def test_callbacks_without_effect_on_results_are_ignored(callback):
    # The class decides, not the name.
    cfg = OmegaConf.merge(config(), {"callbacks": {"anything": callback}})
    assert config_digest(cfg) == config_digest(config())
    assert find_differences(plain(config()), plain(cfg)) == []


@pytest.mark.parametrize(
    "callback",
    [
        {"_target_": SWA, "swa_lrs": 0.01},
        {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "patience": 3},
        {"_target_": "lightning.pytorch.callbacks.GradientAccumulationScheduler"},
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "/a"},
        {"_target_": CHECKPOINT, "monitor": "val/image_auroc", "save_top_k": 1},
        {"_target_": "mine.Callback"},
        {"_target_": "${name}"},
        {"leave": True},
        "${mine}",
        None,
    ],
)
def test_other_callbacks_are_significant_with_any_name(callback):
    digests = {config_digest(config())}
    for name in ("progress", "checkpoint", "mine"):
        digests.add(config_digest(OmegaConf.merge(config(), {"callbacks": {name: callback}})))
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("devices", "number"),
    [(1, 1), ("2", 2), ([3], 1), ([0, 3], 2), ("0,3", 2), ("3,", 1), (-1, -1), ("auto", "auto")],
)
def test_number_of_devices_is_significant(devices, number):
    assert number_of_devices(devices) == number
    cfg = config()
    OmegaConf.update(cfg, "trainer.devices", devices)
    assert config_digest(cfg) == config_digest(
        OmegaConf.merge(cfg, {"trainer": {"devices": number}})
    )
    assert config_digest(cfg) != config_digest(config("trainer.devices=7"))


def composed(*words) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=list(words))


def leaves(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def reason_to_ignore(key, config):
    """The documented reason why a key is ignored; None if it is significant."""
    for listed, reason in IGNORED_KEYS.items():
        if key == listed or key.startswith(f"{listed}."):
            return reason
    group, _, rest = key.partition(".")
    name, _, option = rest.partition(".")
    if group != "callbacks" or option == "_target_":  # another class is another callback
        return None
    options = IGNORED_CALLBACKS.get(config["callbacks"][name]["_target_"], {})
    return "displayed during training" if options is None else options.get(option)


def test_every_key_is_significant_or_listed_with_a_reason():
    choices, asked = defaultdict(list), set()
    for path in sorted(conf_dir().rglob("*/*.yaml")):
        group = path.parent.relative_to(conf_dir()).as_posix()
        if group.partition("/")[0] in ("study", "experiment", "hparams_search"):
            asked |= set(leaves(yaml.safe_load(path.read_text()) or {})) - {"defaults"}
        elif group != "hydra/launcher" and path.stem != "base":
            choices[group].append(f"{group}={path.stem}")
    seen = {}
    for turn in range(max(map(len, choices.values()))):
        words = [several[turn % len(several)] for several in choices.values()]
        cfg = composed(*words, "data.root=somewhere")
        config = OmegaConf.to_container(cfg)
        for key in leaves(config):
            seen.setdefault(key, (cfg, config))
    # Studies only set keys of the other groups.
    assert {key for key in asked if not key.startswith("hydra.")} <= seen.keys()
    assert len(seen) > 100
    for key, (cfg, config) in seen.items():
        other = cfg.copy()
        OmegaConf.update(other, key, "something else", force_add=True)
        reason = reason_to_ignore(key, config)
        same = config_digest(other) == config_digest(cfg)
        assert same == bool(reason), f"{key}: {reason}"
        assert bool(find_differences(config, OmegaConf.to_container(other))) != bool(reason), key
    # Only loggers and report are ignored as groups, and no key is listed twice.
    groups = {key.rpartition(".")[0] for key in seen} | {
        key.partition(".")[0] for key in seen if "." in key
    }
    assert IGNORED_KEYS.keys() & (groups | {"callbacks", "trainer"}) == {"logger", "report"}
    assert all(IGNORED_KEYS.values())


def test_choices_that_change_training_have_different_digests():
    words = ["threshold.kind=f1max", "threshold.kind=none", "callbacks=early_stopping"]
    words += [
        "speed=fast",
        "model.ema_decay=null",
        "loss=pixel_cosine",
        "optimizer=adamw",
        "trainer=cpu",
    ]
    digests = {word: config_digest(composed(word)) for word in words}
    digests["default"] = config_digest(composed())
    callbacks = {
        "swa": SWA,
        "accumulate": "lightning.pytorch.callbacks.GradientAccumulationScheduler",
    }
    for name, target in callbacks.items():
        digests[name] = config_digest(composed(f"+callbacks.{name}._target_={target}"))
    assert len(set(digests.values())) == len(digests), digests
    for word in ("logger=csv", "callbacks=none", "speed=off"):
        assert config_digest(composed(word)) == digests["default"], word


def test_thresholds_have_different_digests():
    kinds = ("quantile", "f1max", "none")
    keys = [
        dict(significant_items(OmegaConf.to_container(composed(f"threshold.kind={kind}"))))
        for kind in kinds
    ]
    assert [config["threshold.kind"] for config in keys] == list(kinds)
    rates = [config_digest(composed(f"threshold.false_positive_rate={r}")) for r in (0.01, 0.05)]
    assert len(set(rates)) == 2 and config_digest(composed()) in rates


def test_credentials_are_not_compared():
    masked = plain(config()) | {"api_key": "***"}
    assert find_differences(masked, plain(config()) | {"api_key": "0123"}) == []
