"""Every choice of every group composes and makes what it says."""

import re
from itertools import chain, pairwise
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from anomalib_rd.cli import main
from anomalib_rd.cli.config import conf_dir, config_hash, register_resolvers, stem
from anomalib_rd.networks import Distiller
from anomalib_rd.results.record import read_record, trainer_limits
from anomalib_rd.training.build import make_module
from anomalib_rd.training.train import train

CONF = conf_dir()
GROUPS = {
    str(folder.relative_to(CONF)): sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(CONF.rglob("*"))
    if folder.is_dir() and any(folder.glob("*.yaml"))
}
CHOICES = [(group, name) for group, names in GROUPS.items() for name in names]


def composed(*words):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(words), return_hydra_config=True)


def test_the_groups_of_the_design_are_there():
    wanted = "data model model/teacher model/masking"
    wanted += " model/scoring loss optimizer scheduler trainer logger callbacks"
    wanted += " experiment hparams_search study"
    assert set(wanted.split()) <= set(GROUPS)


# Launchers are compositions of plugins that extras bring.
PLUGINS = {"parallel": "joblib", "local": "submitit", "slurm": "submitit"}


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group, name):
    if group == "hydra/launcher":
        pytest.importorskip(f"hydra_plugins.hydra_{PLUGINS.get(name, 'ray')}_launcher")
    if group == "hparams_search":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    needs = {"data=folder": ["data.root=somewhere"]}.get(f"{group}={name}", [])
    if (group, name) == ("data", "base"):
        pytest.skip("what the others inherit")
    cfg = composed(f"{group}={name}", *needs)
    assert cfg.hydra.runtime.choices[group] == name


@pytest.mark.parametrize(
    ("model", "teacher"),
    [("rd4ad", teacher) for teacher in GROUPS["model/teacher"]]
    + [(model, "resnet18") for model in GROUPS["model"]],
)
def test_models_and_teachers_make_networks(compose_config, model, teacher):
    words = (f"model={model}", f"model/teacher={teacher}", "model.teacher.weights=random")
    cfg = compose_config(*words)
    parts = {p: instantiate(cfg.model[p]) for p in ("teacher", "masking", "fusion", "student")}
    assert isinstance(Distiller(**parts), Distiller)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        c
        for c in CHOICES
        if c[0] in {"model/masking", "model/scoring"} or c[0] in {"loss", "optimizer", "scheduler"}
    ],
)
def test_parts_train_for_an_epoch(compose_config, group, name):
    train(compose_config(f"{group}={name}", "trainer.max_epochs=2"))


@pytest.mark.parametrize("name", GROUPS["logger"])
def test_every_logger_logs(compose_config, tmp_path, name, monkeypatch):
    if name in ("tensorboard", "mlflow"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)  # MLflow writes here
    train(compose_config(f"logger={name}", "trainer.max_epochs=1"))
    left = {path.name.split("-")[0] for path in tmp_path.rglob("*") if path.is_file()}
    trace = {
        "csv": "metrics.csv",
        "tensorboard": "events.out.tfevents",
        "wandb": "run",
        "mlflow": "mlflow.db",
    }
    assert name == "none" or any(f.startswith(trace[name]) for f in left)


def test_without_callbacks_no_checkpoint_is_left(compose_config, tmp_path):
    train(compose_config("callbacks=none", "+trainer.enable_checkpointing=false"))
    assert read_record(tmp_path / "run")["checkpoint"] is None
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("experiment", GROUPS["experiment"])
def test_experiments_make_networks(experiment):
    cfg = composed(f"experiment={experiment}", "model.teacher.weights=random")
    parts = {p: instantiate(cfg.model[p]) for p in ("teacher", "masking", "fusion", "student")}
    large = experiment in ("rd4ad", "fmg_rd")
    assert Distiller(**parts).teacher.channels[-1] == 1024 or not large


@pytest.mark.parametrize("name", GROUPS["trainer"])
def test_every_trainer_says_what_it_is(name):
    cfg = composed(f"trainer={name}")
    assert (
        cfg.trainer.use_distributed_sampler is False
        and cfg.trainer.max_epochs == cfg.data.default_epochs
    )


def test_experiments_are_the_published_settings():
    cfg = composed("experiment=rd4ad")
    assert (cfg.model.teacher.name, cfg.model.student.design) == (
        "wide_resnet50_2.tv_in1k",
        "de_resnet",
    )
    assert (cfg.seed, cfg.trainer.max_epochs, list(cfg.data.image_size)) == (111, 200, [256, 256])
    assert (cfg.optimizer.lr, list(cfg.optimizer.betas)) == (0.005, [0.5, 0.999])
    assert (cfg.data.train_batch_size, cfg.model.scoring.sigma) == (16, 4.0)
    assert composed("experiment=fmg_rd", "model/teacher=resnet18").model.teacher.name.startswith(
        "resnet18"
    )


def test_components_start_from_rd4ad(compose_config):
    """Mask none, attention none is RD4AD's network, parameter for parameter."""
    shapes = []
    for words in (
        ["model=rd4ad"],
        ["model=fmg_rd", "model/masking=none", "model.fusion.attention=none"],
    ):
        cfg = compose_config(*words)
        distiller = Distiller(
            **{p: instantiate(cfg.model[p]) for p in ("teacher", "masking", "fusion", "student")}
        )
        shapes.append({k: v.shape for k, v in distiller.state_dict().items()})
    assert shapes[0] == shapes[1]


def test_config_hash_tells_runs_apart_by_what_they_compute():
    base = config_hash(_root_=composed())
    assert base == config_hash(_root_=composed("logger=csv", "sweep=other", "report.heatmaps=3"))
    for change in ("seed=1", "model=rd4ad", "data.category=grass", "trainer.max_epochs=3"):
        assert base != config_hash(_root_=composed(change))
    assert stem("resnet18.tv_in1k") == "resnet18"


@pytest.mark.parametrize("name", GROUPS["debug"])
def test_debug_runs_are_partial(compose_config, tmp_path, name):
    words = [f"debug={name}", "report.heatmaps=0", "report.gallery=0"]
    train(compose_config(*words, *["trainer.max_epochs=2"] * (name == "overfit")))
    record = read_record(tmp_path / "run")
    assert trainer_limits(record) and record["config"]["logger"] == {}
    profile = tmp_path / "run/fit-profile.txt"
    assert profile.is_file() == (name == "profiler")


def uncommented_keys(text):
    """Keys with a value and neither a comment on their line nor right above."""
    parents, lines = [], ["", *text.splitlines()]
    for above, line in pairwise(lines):
        match = re.match(r"( *)(?:- )?([^\s#:]+):(?: +(.*))?$", line)
        if not match or "[" in match[2]:
            continue
        indent, key, value = len(match[1]), match[2], (match[3] or "").partition(" #")
        parents = [one for one in parents if one[0] < indent]
        commented = "#" in line or above.strip().startswith("#")
        swept = any(name == "params" and described for _, name, described in parents)
        own = key in ("_target_", "_partial_") or any(name == "defaults" for _, name, _ in parents)
        if value[0].strip() and not (commented or swept or own):
            yield key
        parents.append((indent, key, commented))


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_key_has_a_comment(path):
    text = re.sub(r"template: \|\n(?: {6}.*\n|\n)*", "", path.read_text())
    assert list(uncommented_keys(text)) == []
    assert path.stem in ("train",) or text.startswith("#")


def test_keys_without_a_comment_are_found():
    text = "# A file.\na: 1 # one\nb:\n  c: 2\n  # three\n  d: 3\nparams: # swept\n  e: 1,2\n"
    assert list(uncommented_keys(text)) == ["c"]


def test_help_begins_with_examples_and_lists_every_group(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    assert text.index("Examples") < text.index("Keys used most") < text.index("model/teacher: ")
    assert all(f"\n{group}: " in text for group in GROUPS if not group.startswith("hydra"))
    keys = re.findall(r"^  ([\w.]+)=\S+ {2,}", text, re.MULTILINE)
    assert len(keys) >= 9
    for key in keys:
        assert OmegaConf.select(composed(), key, default=None) is not None or key == "data.root"
    assert len(text.splitlines()) < 50


def test_configs_have_no_machine_paths():
    text = "".join(path.read_text() for path in chain(CONF.rglob("*.yaml")))
    assert not any(part in text for part in ("/home/", "/mnt/", f"{Path.home()}/"))


def test_optimizer_takes_all_that_can_learn(compose_config):
    cfg = compose_config("model=fmg_rd")
    module = make_module(cfg)
    (group,) = module.configure_optimizers().param_groups
    count = sum(p.numel() for p in group["params"])
    parts = (module.distiller.masking, module.distiller.fusion, module.distiller.student)
    assert count == sum(p.numel() for part in parts for p in part.parameters())
    assert (group["lr"], group["betas"]) == (0.005, (0.5, 0.999))
