"""What makes a run another run, and how that is said."""

import pytest
from omegaconf import OmegaConf

from anomalib_rd.errors import UserError
from anomalib_rd.results.identity import config_digest, differences, require_same_run

CONFIG = {
    "seed": 0,
    "name": "a",
    "run_dir": "/runs/a",
    "heatmaps": 8,
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
    "heatmaps=0",
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
    assert config_digest(other) != config_digest(written_out)
    require_same_run(tmp_path, written_out, kept, config_digest(other))


def test_a_key_that_came_later_counts_if_it_is_set():
    older = plain(made())
    assert differences(older, plain(made("pixel_bins=null"))) == []
    assert differences(older, plain(made("pixel_bins=100"))) == [("pixel_bins", "null", "100")]


@pytest.mark.parametrize("word", ["data.val=null", "data.val_share=0.2", "objective_on_test=false"])
def test_a_younger_key_at_its_default_is_as_if_absent(word):
    assert config_digest(made(word)) == config_digest(made())
    assert differences(plain(made()), plain(made(word))) == []


def test_validation_and_early_stopping_make_other_runs_but_no_other_callback_does():
    early = "callbacks.early_stopping.patience=3"
    words = ["data.val=synthetic", "data.val_share=0.3", "objective_on_test=true", early]
    digests = {config_digest(made(word)) for word in words}
    assert len(digests) == len(words) and config_digest(made()) not in digests
    assert config_digest(made("callbacks.progress.leave=true")) == config_digest(made())
    assert differences(plain(made()), plain(made(early))) == [
        ("callbacks.early_stopping.patience", "null", "3")
    ]


def test_credentials_are_neither_compared_nor_shown():
    masked = plain(made()) | {"api_key": "***"}
    assert differences(masked, plain(made()) | {"api_key": "0123"}) == []
