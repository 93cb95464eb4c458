"""What makes a run another run, and how that is said."""

from collections import defaultdict

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from anomalib_rd.cli.config import conf_dir, register_resolvers
from anomalib_rd.errors import UserError
from anomalib_rd.results.identity import (
    IGNORED,
    IGNORED_CALLBACKS,
    config_digest,
    counted,
    differences,
    number_of_devices,
    require_same_run,
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
NO_OTHER_RUN = [
    "name=b",
    "run_dir=/elsewhere",
    "report.heatmaps=0",
    "logger.csv.save_dir=x",
    "data.num_workers=4",
    "speed.image_cache=false",
]
OTHER_RUN = [
    "seed=1",
    "data.category=pill",
    "model.masking.ratio=0.4",
    "model.sizes=[128,128]",
    "speed.precision=bf16-mixed",
    "trainer.max_epochs=5",
    "scheduler.T_max=4",
]


def made(*words):
    return OmegaConf.merge(OmegaConf.create(CONFIG), OmegaConf.from_dotlist(list(words)))


def plain(cfg):
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("word", NO_OTHER_RUN)
def test_what_changes_no_result_makes_no_other_run(word):
    assert config_digest(made(word)) == config_digest(made())
    assert differences(plain(made()), plain(made(word))) == []


@pytest.mark.parametrize("word", OTHER_RUN)
def test_all_else_makes_another_run(word):
    assert config_digest(made(word)) != config_digest(made())
    ((key, there, here),) = differences(plain(made()), plain(made(word)))
    assert key == word.split("=")[0] and there != here
    with pytest.raises(UserError, match=f"{key}=.* there, .* here"):
        require_same_run("folder", made(word), plain(made()), config_digest(made()))


def test_three_keys_are_named_with_both_values_and_the_rest_counted(tmp_path):
    words = ["seed=1", "data.category=pill", "model.masking.ratio=0.4", "trainer.max_epochs=5"]
    with pytest.raises(UserError) as refused:
        require_same_run(tmp_path, made(*words), plain(made()), None)
    assert str(refused.value) == (
        f'{tmp_path} holds a run of another config (seed=0 there, 1 here; data.category="bottle" '
        'there, "pill" here; model.masking.ratio=0.3 there, 0.4 here; 1 keys more); '
        "take another folder (hydra.run.dir=...) or remove that one"
    )


def test_another_machines_data_folder_is_the_same_run_if_the_environment_says_it(
    monkeypatch, tmp_path
):
    kept, digest = plain(made()), config_digest(made())
    monkeypatch.setenv("ROOT", "/scratch/job-17")
    require_same_run(tmp_path, made(), kept, digest)
    # Without the digest, as an older version left it, the values count.
    with pytest.raises(UserError, match=r"data\.root"):
        require_same_run(tmp_path, made(), kept, None)


def test_the_same_values_written_otherwise_are_the_same_run(tmp_path):
    other = made("trainer.max_epochs=${model.epochs}", "model.epochs=4")
    kept = plain(other)
    written_out = made("trainer.max_epochs=4", "model.epochs=4")
    assert config_digest(other) == config_digest(written_out)
    require_same_run(tmp_path, written_out, kept, None)


def test_a_value_that_the_environment_says_counts_by_its_value(monkeypatch):
    """Only where the images are may differ between machines."""
    cfg = made("optimizer.lr=${oc.env:LR}", "model.sizes=['${oc.env:LR}']")
    digests = set()
    for value in ("0.1", "0.2"):
        monkeypatch.setenv("LR", value)
        digests.add(config_digest(cfg))
    monkeypatch.delenv("LR")  # not said yet: as it is written
    assert len(digests | {config_digest(cfg)}) == 3


def test_a_key_that_is_not_counted_does_not_count_by_an_interpolation_of_it():
    words = ["optimizer.log=${run_dir}/log", "model.label=${name}"]
    assert config_digest(made(*words)) == config_digest(made(*words, "run_dir=/b", "name=b"))


def test_a_key_that_came_later_counts_if_it_is_set():
    older = plain(made())
    assert differences(older, plain(made("metrics.max_bins=null"))) == []
    assert differences(older, plain(made("metrics.max_bins=100"))) == [
        ("metrics.max_bins", "null", "100")
    ]


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
def test_a_callback_that_changes_no_result_does_not_count(callback):
    # Its name says nothing: what counts is the class.
    cfg = OmegaConf.merge(made(), {"callbacks": {"anything": callback}})
    assert config_digest(cfg) == config_digest(made())
    assert differences(plain(made()), plain(cfg)) == []


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
def test_any_other_callback_counts_whatever_it_is_called(callback):
    digests = {config_digest(made())}
    for name in ("progress", "checkpoint", "mine"):
        digests.add(config_digest(OmegaConf.merge(made(), {"callbacks": {name: callback}})))
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("devices", "number"),
    [(1, 1), ("2", 2), ([3], 1), ([0, 3], 2), ("0,3", 2), ("3,", 1), (-1, -1), ("auto", "auto")],
)
def test_how_many_devices_counts_and_not_which(devices, number):
    assert number_of_devices(devices) == number
    cfg = made()
    OmegaConf.update(cfg, "trainer.devices", devices)
    assert config_digest(cfg) == config_digest(
        OmegaConf.merge(cfg, {"trainer": {"devices": number}})
    )
    assert config_digest(cfg) != config_digest(made("trainer.devices=7"))


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
    """The stated reason why a key does not count; None if it does."""
    for listed, reason in IGNORED.items():
        if key == listed or key.startswith(f"{listed}."):
            return reason
    group, _, rest = key.partition(".")
    name, _, option = rest.partition(".")
    if group != "callbacks" or option == "_target_":  # another class is another callback
        return None
    options = IGNORED_CALLBACKS.get(config["callbacks"][name]["_target_"], {})
    return "shown while it trains" if options is None else options.get(option)


def test_every_key_of_every_group_counts_or_is_listed_with_its_reason():
    choices, asked = defaultdict(list), set()
    for path in sorted(conf_dir().rglob("*/*.yaml")):
        group = path.parent.relative_to(conf_dir()).as_posix()
        if group.partition("/")[0] in ("study", "experiment", "hparams_search"):
            asked |= {
                key for key in leaves(yaml.safe_load(path.read_text()) or {}) if key != "defaults"
            }
        elif group != "hydra/launcher" and path.stem != "base":
            choices[group].append(f"{group}={path.stem}")
    seen = {}
    for turn in range(max(map(len, choices.values()))):
        words = [several[turn % len(several)] for several in choices.values()]
        cfg = composed(*words, "data.root=somewhere")
        config = OmegaConf.to_container(cfg)
        for key in leaves(config):
            seen.setdefault(key, (cfg, config))
    # Those ask by the keys of the other groups.
    assert {key for key in asked if not key.startswith("hydra.")} <= seen.keys()
    assert len(seen) > 100
    for key, (cfg, config) in seen.items():
        other = cfg.copy()
        OmegaConf.update(other, key, "something else", force_add=True)
        reason = reason_to_ignore(key, config)
        same = config_digest(other) == config_digest(cfg)
        assert same == bool(reason), f"{key}: {reason}"
        assert bool(differences(config, OmegaConf.to_container(other))) != bool(reason), key
    # Nothing is left out by the dozen but what is no part of the run itself, and nothing twice.
    groups = {key.rpartition(".")[0] for key in seen} | {
        key.partition(".")[0] for key in seen if "." in key
    }
    assert IGNORED.keys() & (groups | {"callbacks", "trainer"}) == {"logger", "report"}
    assert all(IGNORED.values())


def test_every_choice_that_trains_otherwise_has_a_digest_of_its_own():
    words = [
        "threshold.kind=f1max",
        "threshold.kind=none",
        "callbacks=early_stopping",
        "speed=fast",
    ]
    words += ["model.ema_decay=null", "loss=pixel_cosine", "optimizer=adamw", "trainer=cpu"]
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


def test_a_sweep_over_thresholds_has_a_folder_for_each():
    kinds = ("quantile", "f1max", "none")
    keys = [
        dict(counted(OmegaConf.to_container(composed(f"threshold.kind={kind}")))) for kind in kinds
    ]
    assert [config["threshold.kind"] for config in keys] == list(kinds)
    rates = [config_digest(composed(f"threshold.false_positive_rate={r}")) for r in (0.01, 0.05)]
    assert len(set(rates)) == 2 and config_digest(composed()) in rates


def test_credentials_are_neither_compared_nor_shown():
    masked = plain(made()) | {"api_key": "***"}
    assert differences(masked, plain(made()) | {"api_key": "0123"}) == []
