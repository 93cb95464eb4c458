"""The studies compose, and a tiny one runs to its record by the Makefile's own commands."""

import csv
import shlex
import shutil
import subprocess

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from small_data import make_mvtec

from anomalib_rd.cli import main
from anomalib_rd.cli.config import conf_dir
from anomalib_rd.cli.overrides import register_points
from anomalib_rd.cli.study import list_study_jobs
from anomalib_rd.results.record import read_record
from anomalib_rd.scoring import StandardisedScorer
from anomalib_rd.training.train import train

TOP = conf_dir().parent
# How many variants each asks about, how often each is run, and the epochs of the longest run.
STUDIES = {
    "components": (4, 9, 50),
    "attention": (6, 9, 50),
    "mask": (15, 9, 50),
    "loss": (6, 9, 50),
    "teacher": (8, 9, 50),
    "budget": (4, 9, 200),
    "unified": (4, 9, 100),
    "choice": (12, 3, 5),
    "better": (2, 9, 50),
    "batch": (4, 9, 50),
    "seeds": (1, 30, 50),
    "mask_ratio": (4, 9, 50),
    "mask_strategy": (4, 9, 50),
    "mvtec15": (2, 75, 200),
}
# Without a folder of results: asked of the complete method, after `mask`.
WITHOUT_RESULTS = {"mask_ratio", "mask_strategy"}
ONE = ["data.category=bottle", "seed=0"]
TINY = [
    "data.category=cloth",
    "data.image_size=[64,64]",
    "data.num_workers=0",
    "validation.fraction=0.4",
]
TINY += ["trainer=cpu", "trainer.max_epochs=1", "model.teacher.weights=random", "logger=none"]
TINY += ["report.heatmaps=0", "report.gallery=0", "report.html=false"]


def points(study):
    params = OmegaConf.load(TOP / f"conf/study/{study}.yaml").hydra.sweeper.params
    return list(params.point)


def test_every_study_has_its_folder_and_is_known():
    files = {path.stem for path in (TOP / "conf/study").glob("*.yaml")}
    assert files == {*STUDIES}
    readmes = {
        name: (TOP / f"experiments/{name}/README.md").read_text()
        for name in {*STUDIES} - WITHOUT_RESULTS
    }
    for name, text in readmes.items():
        assert f"make study-{name}\n" in text and "**Question.**" in text


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_of_a_study_composes(name):
    variants, _, _ = STUDIES[name]
    jobs = list_study_jobs(name, ONE)
    assert len({job.digest for job in jobs}) == len(jobs) == variants


def test_words_scale_a_study():
    jobs = list_study_jobs("mask", [*ONE, "trainer.max_epochs=20", "point=none,random_50"])
    assert len(jobs) == 2 and all("trainer.max_epochs=20" in job.overrides for job in jobs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seeds", "mvtec15"])
def test_all_jobs_of_a_study_compose_without_data_or_weights(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MVTEC_ROOT", str(tmp_path / "nothing"))
    assert main(["study", "plan", name]) == 0
    variants, repeats, _ = STUDIES[name]
    *lines, last = capsys.readouterr().out.splitlines()
    number = variants * repeats
    assert last == f"{number} jobs, 0 complete, {number} to run"
    assert len(set(lines)) == number and all(line.startswith("to run ") for line in lines)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_its_teacher_and_budget(name, composed):
    cfg = composed(f"study={name}")
    params = cfg.hydra.sweeper.params
    epochs = str(params.get("trainer.max_epochs", cfg.trainer.max_epochs))
    assert int(epochs.split(",")[-1]) == STUDIES[name][2]
    large = name == "mvtec15"
    assert cfg.model.teacher.name == ("wide_resnet50_2.tv_in1k" if large else "resnet18.tv_in1k")
    assert cfg.model.student.design == ("de_resnet" if large else "auto")
    # Whoever chooses between variants does it on held-out images; the others train on all.
    on_all = ("better", "budget", "seeds", "mvtec15", "unified")
    assert cfg.validation.kind == (None if name in on_all else "synthetic")
    assert cfg.test_during_training == (name in ("budget", "unified"))


@pytest.mark.parametrize("name", points("mask"))
def test_masks_are_what_their_names_say(name, composed):
    masking = composed("study=mask", f"point={name}").model.masking
    strategy, _, rest = name.partition("_")
    if strategy == "none":
        assert masking._target_.endswith("NoMasking")
        return
    assert (masking.strategy, f"{masking.ratio:.1f}") == (strategy, f"0.{rest[0]}")
    assert masking.generation == ("generated" in name)
    assert masking.token == ("learned" if "generated" in name else "zero")
    assert (masking.inference == "complementary") == name.endswith("complementary")
    instantiate(masking)(channels=[8, 16, 32])


@pytest.mark.parametrize("name", points("choice"))
def test_choices_are_what_their_names_say(name, composed):
    cfg = composed("study=choice", f"point={name}")
    assert cfg.loss._target_.endswith("HardCosine" if "hard" in name else "FlattenedCosine")
    assert cfg.model.fusion.attention == ("cbam" if "attention" in name else "none")
    assert cfg.model.masking._target_.endswith("FeatureMasking" if "mask" in name else "NoMasking")
    assert cfg.model.masking.get("generation", False) == ("generated" in name)
    assert cfg.model.masking.get("ratio") == (
        None if "mask" not in name else 0.1 if "mask10" in name else 0.3
    )
    assert cfg.model.ema_decay == (0.98 if "average" in name else None)
    scorer = instantiate(cfg.model.scoring)
    assert isinstance(scorer, StandardisedScorer) == ("standardised" in name)


@pytest.mark.parametrize("name", ["components", "mask", "attention"])
def test_a_study_of_parts_starts_from_rd4ad(name, composed):
    none = {"components": ["model/masking=none", "model.fusion.attention=none"]}
    none |= {"mask": ["point=none"], "attention": ["model.fusion.attention=none"]}
    ours = composed(f"study={name}", *none[name]).model
    rd4ad = composed("model=rd4ad", "model/teacher=resnet18").model
    assert {**OmegaConf.to_container(ours), "name": "rd4ad"} == OmegaConf.to_container(rd4ad)
    assert composed(f"study={name}", *none[name]).loss == composed("model=rd4ad").loss


def test_one_multirun_has_a_model_for_each_category_and_one_for_all():
    jobs = list_study_jobs("unified", ["seed=0", "model=rd4ad"])
    folders = [job.folder.split("/")[0] for job in jobs]
    assert folders == ["bottle", "capsule", "pill", "bottle+capsule+pill"]


@pytest.fixture
def composed():
    from hydra import compose, initialize_config_dir

    from anomalib_rd.cli.config import register_resolvers

    register_resolvers()

    def make(*words):
        register_points(list(words))
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("train", overrides=list(words), return_hydra_config=True)

    return make


def test_a_point_of_the_test_curve_is_the_end_of_a_shorter_run(compose_config, tmp_path):
    """So one long run has every budget, as long as the learning rate is constant."""
    words = [
        "model=fmg_rd",
        "report.gallery=0",
        "report.heatmaps=0",
        "callbacks=none",
        "test_during_training=true",
    ]
    words += ["+trainer.enable_checkpointing=false", "trainer.check_val_every_n_epoch=2"]
    for epochs in (2, 4):
        folder = tmp_path / str(epochs)
        folder.mkdir()
        train(compose_config(*words, f"trainer.max_epochs={epochs}", f"run_dir={folder}"))
    short, long = (read_record(tmp_path / epochs) for epochs in ("2", "4"))
    assert long["test_curve"][0] == {"epoch": 2, **short["metrics"]}
    assert long["metrics"] != short["metrics"]


def commands(target, **variables):
    """What make would start of the program for a target, in words."""
    said = [f"{name}={value}" for name, value in variables.items()]
    words = ["make", "--dry-run", "--directory", str(TOP), target, *said]
    shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    program = ".venv/bin/anomalib-rd "
    return [shlex.split(line)[1:] for line in shown.splitlines() if line.startswith(program)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_runs_a_study_to_its_record_and_again_runs_nothing(tmp_path, monkeypatch, capsys):
    root = make_mvtec(tmp_path / "mvtec", categories=("cloth",), train=10)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MVTEC_ROOT", str(root))
    words = " ".join([*TINY, "seed=0", "model/masking=none"])
    runs, record = commands("study-components", ARGS=words, OUT=tmp_path / "components")
    assert runs[:4] == ["train", "-m", "study=components", "sweep=study-components"]
    assert main(runs) == 0 and main(record) == 0
    with (tmp_path / "components/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["variant"] for row in rows}) == len(rows) == 2
    assert all(row["epochs"] == "1" and row["val/image_auroc"] for row in rows)
    assert (tmp_path / "components/figure.png").stat().st_size > 10_000
    text = (tmp_path / "components/summary.md").read_text()
    assert "Differences to attention=none on mvtec" in text
    assert "against no correlation" in text and str(tmp_path) not in text

    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(runs)
    assert stop.value.code == 0
    assert "all 2 runs of multirun/study-components are complete" in capsys.readouterr().out
    (plan,) = commands("plan-components", ARGS=words)
    assert main(plan) == 0
    assert "2 jobs, 2 complete, 0 to run" in capsys.readouterr().out
