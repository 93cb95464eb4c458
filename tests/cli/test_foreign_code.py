"""No checkpoint, record or exported file has code run that the user does not trust."""

import copy
import json
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import canary
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from anomalib_rd import load_run
from anomalib_rd.cli import main
from anomalib_rd.cli.config import register_resolvers
from anomalib_rd.cli.evaluate import evaluation_config
from anomalib_rd.components import OTHER_PARTS, OWN_PARTS, is_known, require_known_code
from anomalib_rd.errors import UserError
from anomalib_rd.inference import load
from anomalib_rd.inference.runtimes import Metadata, from_json
from anomalib_rd.results.files import read_json
from anomalib_rd.training import train as training
from anomalib_rd.training.build import (
    make_callbacks,
    make_data,
    make_evaluator,
    make_loggers,
    make_module,
    make_trainer,
    plain_config,
)

BIRD = {"_target_": canary.TARGET}
MADE = f"${{oc.create:{{_target_:{canary.TARGET}}}}}"
ESCAPED = f"\\{MADE}"
TINY = ["model.student.design=generic", "model/masking=none", "model.fusion.attention=none"]
TINY += ["model.teacher.name=test_efficientnet.r160_in1k", "model.teacher.weights=random"]


def put(config, key, value):
    *groups, last = key.split(".")
    for group in groups:
        config = config[group]
    config[last] = copy.deepcopy(value)


def attack(**changes):
    """Changes of a config: ``attack(model__loss=...)`` sets ``model.loss``."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return lambda config: [put(config, key, value) for key, value in changes.items()]


ATTACKS = {
    "literal": attack(model__fusion=BIRD),
    "literal, where our class stands": attack(model__teacher___target_=canary.TARGET),
    "partial": attack(model__fusion={**BIRD, "_partial_": True}),
    "in a list": attack(model__fusion__attention=[BIRD]),
    "in a list of lists": attack(model__fusion__attention=[[{"a": BIRD}]]),
    "behind an interpolation": attack(model__teacher__name=MADE),
    "behind two": attack(bird=MADE, model__teacher__name="${bird}"),
    "behind two, of a plain dict": attack(bird=BIRD, model__teacher__name="${bird}"),
    "its name behind an interpolation": attack(
        bird=canary.TARGET, model__fusion___target_="${bird}"
    ),
    "its name put together": attack(a="canary", model__fusion___target_="${a}.record_call"),
    "an interpolation put together": attack(
        a="$", b=MADE[1:], c="${a}${b}", model__teacher__name="${c}"
    ),
    "in the default of oc.env": attack(model__teacher__name=f"${{oc.env:NO_SUCH_VARIABLE,{MADE}}}"),
    "its name in the default of oc.env": attack(
        model__fusion___target_=f"${{oc.env:NO_SUCH_VARIABLE,{canary.TARGET}}}"
    ),
    "in a key": lambda config: config["model"]["teacher"].update({MADE: 1}),
    "in the key of something empty": lambda config: config["model"]["teacher"].update({MADE: {}}),
    "in _args_": attack(model__scoring___args_=[BIRD]),
    "in _args_, interpolated": attack(model__scoring___args_=[MADE]),
    "_args_ themselves": attack(
        model__scoring___args_=f"${{oc.create:[{{_target_:{canary.TARGET}}}]}}"
    ),
    "nested": attack(bird="teacher", model__student__design="${model.${bird}}", model__x=MADE),
    "a resolver put together": attack(a="create", model__student__design="${oc.${a}:{}}"),
    "escaped": attack(model__teacher__name=ESCAPED),
    "escaped, behind another": attack(bird=ESCAPED, model__teacher__name="${bird}"),
    "blanks": attack(model__teacher__name=MADE.replace("${", "${ ").replace("create:", "create :")),
    "oc.decode": attack(model__fusion=f"${{oc.decode:'{{_target_:{canary.TARGET}}}'}}"),
    "oc.select": attack(model__fusion=f"${{oc.select:nothing,{{_target_:{canary.TARGET}}}}}"),
    "oc.deprecated": attack(bird=BIRD, model__fusion="${oc.deprecated:bird}"),
    "oc.dict.values": attack(birds={"a": BIRD}, model__fusion__attention="${oc.dict.values:birds}"),
    "not recursive": attack(model__fusion={**BIRD, "_recursive_": False, "_convert_": "all"}),
    "a part of another place": attack(model__fusion={"_target_": "torch.optim.Adam", "params": []}),
    "a teacher from an address": attack(model__teacher__name="hf-hub:someone/model"),
    "data": attack(data__source=BIRD),
    "data, in a list": attack(data__source__root=[BIRD]),
}
# What only training and evaluation make.
OF_TRAINING = {
    "loss": attack(loss=BIRD),
    "optimizer": attack(optimizer={**BIRD, "_partial_": True}),
    "optimizer, nested": attack(optimizer__betas=[BIRD, 0.9]),
    "trainer": attack(trainer=BIRD),
    "plugins": attack(trainer__plugins=[BIRD]),
    "profiler": attack(trainer__profiler=MADE),
}
OF_REPEATING = {
    "strategy": attack(trainer__strategy=BIRD),
    "scheduler": attack(scheduler={**BIRD, "_partial_": True}),
    "scheduler by a function": attack(
        scheduler={
            **{"_target_": "torch.optim.lr_scheduler.LambdaLR", "_partial_": True},
            "lr_lambda": BIRD,
        }
    ),
    "callback": attack(callbacks__bird=BIRD),
    "callback by a function": attack(
        callbacks__bird={
            "_target_": "lightning.pytorch.callbacks.LambdaCallback",
            "setup": {**BIRD, "_partial_": True},
        }
    ),
    "callback that is a command line": attack(
        callbacks__bird={
            "_target_": "lightning.pytorch.cli.LightningCLI",
            "args": [f"--trainer.callbacks={canary.TARGET}"],
        }
    ),
    "logger": attack(logger={"bird": BIRD}),
    "logger, interpolated": attack(logger={"bird": {"_target_": "${a}"}}, a=canary.TARGET),
    "transform": attack(data__transform=BIRD),
    "transform, nested": attack(
        data__transform={
            "_target_": "torchvision.transforms.v2.Compose",
            "transforms": [{"_target_": "torchvision.transforms.v2.Lambda", "lambd": BIRD}],
        }
    ),
    "hydra's own part": attack(hydra={"callbacks": {"bird": BIRD}}),
    "hydra's own values": attack(model__scoring="${hydra:callbacks.report}"),
    "defaults": attack(defaults=[{"hydra/job_logging": "default"}]),
    "written elsewhere": attack(callbacks__checkpoint__dirpath="/tmp/elsewhere"),
    "written above": attack(callbacks__checkpoint__filename="../../last"),
    "written beside the run": attack(callbacks__checkpoint__dirpath="runs/other/checkpoints"),
    "written where the environment says": attack(
        logger={
            "tensorboard": {
                "_target_": "lightning.pytorch.loggers.TensorBoardLogger",
                "save_dir": "${run_dir}",
                "name": "$HOME/elsewhere",
            }
        }
    ),
    "data made elsewhere": attack(
        data__source={"_target_": "anomalib_rd.data.Demo", "root": f"/tmp/{uuid4().hex}"}
    ),
}
NAMES = [*ATTACKS, *OF_TRAINING]


@pytest.fixture(autouse=True)
def silence():
    """Each test begins without a song."""
    register_resolvers()
    canary.CALLS.clear()


@pytest.fixture
def configs(compose_config):
    """A small run's config, resolved and as written."""
    cfg = compose_config(*TINY)
    return plain_config(cfg), plain_config(cfg, resolve=False)


@pytest.fixture
def stored(run, monkeypatch):
    """Let a run's checkpoint be read with another config: ``stored(change)``."""
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True, mmap=True)

    def change(by):
        config = copy.deepcopy(kept["config"])
        by(config)
        monkeypatch.setattr(load, "_read_checkpoint", lambda _: {**kept, "config": config})
        return run

    return change


def a_record(resolved, written):
    record = {"schema_version": 1, "name": "x", "seed": 0, "metrics": {}, "config": resolved}
    record |= {"data": {"name": "x", "category": "cloth", "group": "x", "fingerprint": "x"}}
    record |= {"model": {"name": "x", "teacher": "x"}, "config_as_written": written}
    return record | {"protocol": {"headline": "last epoch", "epochs": 1}}


def make_all(cfg):
    """In the place of a training: make all that it makes."""
    data = make_data(cfg)
    make_module(cfg).configure_optimizers()
    make_evaluator(cfg, data)
    loggers = make_loggers(cfg.logger, Path(cfg.run_dir), resumed=False)
    make_trainer(cfg, make_callbacks(cfg), loggers)
    raise UserError("everything was made")


@pytest.fixture
def record_of(configs, tmp_path):
    """Write a record whose config as written is changed: ``record_of(change)``."""
    resolved, written = configs

    def write(by):
        config = copy.deepcopy(written)
        by(config)
        path = tmp_path / "sent.json"
        path.write_text(json.dumps(a_record(resolved, config)))
        return path

    return write


@pytest.fixture
def repeat(record_of, tmp_path, monkeypatch):
    """``train --from`` up to where the training would begin: the status."""
    monkeypatch.chdir(tmp_path)

    monkeypatch.setattr(training, "train", make_all)

    def start(by, *words):
        folder = f"hydra.run.dir={tmp_path / 'run'}"
        return main(["train", "--from", str(record_of(by)), folder, *words])

    return start


@pytest.mark.parametrize("name", [name for name in ATTACKS if "data" not in name])
def test_a_checkpoint_that_is_loaded_has_nothing_run(stored, name):
    with pytest.raises(UserError, match=r"last\.ckpt: its config"):
        load_run(stored(ATTACKS[name]), device="cpu")
    assert canary.CALLS == []


@pytest.mark.parametrize(
    ("verb", "name"),
    [*(("evaluate", name) for name in NAMES), *(("export", name) for name in ATTACKS)],
)
def test_a_checkpoint_that_is_judged_or_exported_has_nothing_run(stored, capsys, verb, name):
    assert main([verb, str(stored((ATTACKS | OF_TRAINING)[name]))]) == 2
    assert "last.ckpt: its config" in capsys.readouterr().err
    assert canary.CALLS == []


@pytest.mark.parametrize("name", [*NAMES, *OF_REPEATING])
def test_a_record_that_is_repeated_has_nothing_run(repeat, capsys, name):
    assert repeat((ATTACKS | OF_TRAINING | OF_REPEATING)[name]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert canary.CALLS == []
    assert "everything was made" not in error and "sent.json" in error


def test_a_tuple_in_a_checkpoint_is_no_hiding_place(stored):
    with pytest.raises(UserError, match="tuple"):
        load_run(stored(attack(model__fusion__attention=(BIRD,))))
    within = {}
    within["itself"] = within
    with pytest.raises(UserError, match="nested deeper"):
        load_run(stored(attack(model__fusion__attention=within)))
    assert canary.CALLS == []


def test_an_evaluation_makes_no_data_in_a_folder_of_the_checkpoint(stored, tmp_path, capsys):
    root = tmp_path / "elsewhere"
    demo = {"_target_": "anomalib_rd.data.Demo", "root": str(root)}
    path = stored(attack(data__source=demo))
    assert main(["evaluate", str(path)]) == 2
    assert f"data.root={root}" in " ".join(capsys.readouterr().err.split())
    assert not root.exists()


def test_json_that_is_nested_too_deep_is_refused_in_one_line(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(path)
    with pytest.raises(UserError, match="damaged"):
        from_json(path.read_text(), path)


def test_with_trust_the_canary_sings(stored, repeat):
    with suppress(Exception):  # no network is made of a song
        load_run(stored(attack(model__fusion=BIRD)), device="cpu", trust=True)
    assert canary.CALLS
    canary.CALLS.clear()
    with suppress(Exception):
        repeat(attack(loss=BIRD), "--trust")
    assert canary.CALLS


def test_a_record_as_it_is_written_is_repeated(repeat, capsys):
    assert repeat(lambda config: None) == 2
    assert "everything was made" in capsys.readouterr().err


def test_what_the_user_sets_may_be_elsewhere(repeat, tmp_path, capsys):
    elsewhere = f"callbacks.checkpoint.dirpath={tmp_path / 'elsewhere'}"
    assert repeat(lambda config: None, elsewhere) == 2
    assert "everything was made" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["model", "data", "trainer", "callbacks"])
@pytest.mark.parametrize("value", ["text", 1, None, [1]])
def test_parts_of_another_kind_are_refused_in_one_line(repeat, stored, capsys, part, value):
    assert repeat(attack(**{part: value})) == 2
    assert f"{part} in its config" in capsys.readouterr().err
    if part != "callbacks":
        with pytest.raises(UserError, match=r"last\.ckpt"):
            load_run(stored(attack(**{part: value})))


def test_reports_have_nothing_run(run_copy, capsys):
    path = run_copy / "result.json"
    record = json.loads(path.read_text())
    for config in (record["config"], record["config_as_written"]):
        for by in [*ATTACKS.values(), *OF_TRAINING.values(), *OF_REPEATING.values()]:
            with suppress(TypeError, KeyError, AttributeError):  # an earlier one took its place
                by(config)
    path.write_text(json.dumps(record))
    assert main(["report", str(run_copy), "--html"]) == 0
    assert main(["status", str(run_copy)]) in (0, 1, 2)
    with suppress(UserError):
        load_run(run_copy, device="cpu")
    assert canary.CALLS == []


@pytest.mark.parametrize("name", [*NAMES, *OF_REPEATING])
def test_what_an_exported_file_says_has_nothing_run(configs, tmp_path, name):
    resolved = copy.deepcopy(configs[0])
    (ATTACKS | OF_TRAINING | OF_REPEATING)[name](resolved)
    facts = Metadata("x", "cloth", (64, 64), None, {"mean": [0] * 3, "std": [1] * 3})
    text = json.dumps(json.loads(facts.to_json()) | {"model": resolved, "training": resolved})
    if "${" in text:
        with pytest.raises(UserError, match="interpolation"):
            from_json(text, tmp_path / "part.onnx")
    else:
        from_json(text, tmp_path / "part.onnx")
    assert canary.CALLS == []


@pytest.mark.parametrize(
    ("key", "target", "known"),
    [
        ("model.teacher", "anomalib_rd.networks.Teacher", True),
        ("model.fusion", "anomalib_rd.networks.Teacher", False),
        ("model.teacher.name", "anomalib_rd.networks.Teacher", False),
        ("optimizer", "torch.optim.Adam", True),
        ("optimizer", "torch.optim.optimizer.Any", False),
        ("optimizer", "torch.optim.lr_scheduler.StepLR", False),
        ("scheduler", "torch.optim.lr_scheduler.StepLR", True),
        ("data.transform", "torchvision.transforms.v2.Compose", True),
        ("data.transform.transforms.0", "torchvision.transforms.v2.RandomInvert", True),
        ("data.transform", "torchvision.transforms.v2.functional.hflip", False),
        ("callbacks.any", "lightning.pytorch.callbacks.EarlyStopping", True),
        ("callbacks.any.more", "lightning.pytorch.callbacks.EarlyStopping", False),
        ("callbacks.any", "lightning.pytorch.callbacks.LambdaCallback", False),
        ("trainer", "lightning.pytorch.cli.LightningCLI", False),
        ("model.teacher", "anomalib_rd.results.provenance.subprocess.Popen", False),
        ("model.teacher", {"_target_": "os.mkdir"}, False),
        ("", "os.mkdir", False),
    ],
)
def test_what_may_stand_where(key, target, known):
    assert is_known(key, target) == known


def test_all_that_the_table_names_is_there():
    from hydra.utils import get_object

    for names in (OWN_PARTS | OTHER_PARTS).values():
        for name in names:
            assert callable(get_object(name)), name


def paths(config, path=()):
    """The places in a config: each key and each member of a list."""
    items = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, key))


BIRDS = [BIRD, {**BIRD, "_partial_": True}, {**BIRD, "_args_": [1]}, [BIRD], [{"a": [BIRD]}]]
BIRDS += [MADE, ESCAPED, f"x{MADE}", f"${{oc.env:NO_SUCH_VARIABLE,{MADE}}}", [MADE], {MADE: 1}]
BIRDS += [f"${{oc.decode:'{{_target_:{canary.TARGET}}}'}}", "${bird}", "${song}", canary.TARGET]
BIRDS += [{"_target_": "${name}"}, {"_target_": canary.TARGET, "_recursive_": False}]
HIDDEN = {"bird": BIRD, "song": MADE, "name": canary.TARGET}


def hide(data, config):
    """Put birds into some places of the config: as a value, beside one, or as a key."""
    for name in data.draw(st.sets(st.sampled_from(sorted(HIDDEN))), "hidden"):
        config[name] = copy.deepcopy(HIDDEN[name])
    places = data.draw(st.lists(st.sampled_from(list(paths(config))), min_size=1, max_size=4))
    for place in places:
        bird, how = data.draw(st.sampled_from(BIRDS)), data.draw(st.sampled_from(WAYS))
        with suppress(KeyError, IndexError, TypeError):  # an earlier bird took its place
            holder = config
            for key in place[:-1]:
                holder = holder[key]
            if how == "value":
                holder[place[-1]] = copy.deepcopy(bird)
            elif how == "beside":
                holder["another"] = copy.deepcopy(bird)
            else:
                holder[MADE] = holder.pop(place[-1])


WAYS = ["value", "value", "beside", "key"]


@pytest.fixture(scope="module")
def base(mvtec_root, tmp_path_factory):
    """A small run's config: resolved, and as written."""
    from hydra import compose, initialize_config_dir

    from anomalib_rd.cli.config import conf_dir

    register_resolvers()
    folder = tmp_path_factory.mktemp("canary")
    words = ["data=mvtec", "data.category=cloth", "data.image_size=[64,64]", "trainer=cpu"]
    words += ["data.num_workers=0", "logger=none", f"data.root={mvtec_root}", *TINY]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides=[*words, f"run_dir={folder}"])
    return plain_config(cfg), plain_config(cfg, resolve=False), folder


# Shrinking a failure would make detectors for minutes.
PHASES = [Phase.reuse, Phase.generate]


@settings(max_examples=50, phases=PHASES)
@given(data=st.data())
def test_a_canary_anywhere_in_a_checkpoints_config_never_sings(base, data):
    canary.CALLS.clear()
    config, folder = copy.deepcopy(base[0]), base[2]
    hide(data, config)
    path = folder / "last.ckpt"
    path.touch()
    progress = {"fit_loop": {"epoch_progress": {"current": {"processed": 1}}}}
    kept = {"config": config, "state_dict": {}, "loops": progress}
    with pytest.MonkeyPatch.context() as patch, suppress(Exception):
        patch.setattr(load, "_read_checkpoint", lambda _: kept)
        with suppress(Exception):
            load_run(path, device="cpu", teacher_weights="random")
        trained = load.read_run(path)
        cfg = evaluation_config(trained, [], folder, "random")
        require_known_code(path, OmegaConf.to_container(cfg, resolve=True), trust=False)
        make_evaluator(cfg, make_data(cfg))
        make_module(cfg).configure_optimizers()
        make_trainer(cfg, make_callbacks(cfg))
    assert canary.CALLS == []


@settings(max_examples=25, phases=PHASES)
@given(data=st.data())
def test_a_canary_anywhere_in_a_record_never_sings(base, data):
    canary.CALLS.clear()
    config, folder = copy.deepcopy(base[1]), base[2]
    hide(data, config)
    path = folder / "sent.json"
    path.write_text(json.dumps(a_record(base[0], config)))
    with pytest.MonkeyPatch.context() as patch, suppress(Exception):
        patch.chdir(folder)
        patch.setattr(training, "train", make_all)
        main(["train", "--from", str(path), f"hydra.run.dir={folder / 'run'}"])
    assert canary.CALLS == []
