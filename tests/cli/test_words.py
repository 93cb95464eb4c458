"""Names and paths reach a run as they were typed, and whatever is printed can be typed again."""

import inspect
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from small_data import make_mvtec

from anomalib_rd.cli import main
from anomalib_rd.cli.config import compose_config, conf_dir, literal, register_resolvers
from anomalib_rd.cli.errors import likeliest
from anomalib_rd.cli.override_checks import check_overrides
from anomalib_rd.cli.overrides import TRAINER_ARGUMENTS, expand_categories, quote_overrides
from anomalib_rd.cli.sweep import list_jobs
from anomalib_rd.cli.train import resume_command
from anomalib_rd.errors import UserError
from anomalib_rd.results.provenance import MASK, mask_arguments

ODD = ["1.1", "1.10", "1_000", "1e3", "true", "null", "0x10", "~", ".5", "1:30", "on", "nan"]
ODD += ["2024_11_28", "größe", "检测", "a b", "x=y", "it's", '"', "a#b", "p[1]", "(1)", "{a}", "*"]
ODD += ["a~b", "a;b", "a&b", "a\\b", "$", "a$b", "-1", "01", "@", "None", "a,b", "'x'", "a\\"]
TYPED = [name for name in ODD if name not in ("'x'", "a,b")]
"""Those that mean themselves without quotes, with and without -m."""
SMALL = ["data=mvtec", "data.image_size=[64,64]", "data.num_workers=0", "trainer=cpu"]
SMALL += [
    "logger=none",
    "report.heatmaps=0",
    "report.html=false",
    "report.gallery=0",
    "model=untrained",
]


def value(word):
    """What a config holds after the override."""
    config = OmegaConf.create({"key": None})
    OmegaConf.update(config, "key", OverridesParser.create().parse_override(word).value())
    return config.key


names = st.one_of(
    st.sampled_from([*ODD, "${a}", "a\\${b}"]),
    st.text(st.sampled_from("ab1.,[](){}=#~*'\"\\$ é检:|?@+-_&;e"), min_size=1, max_size=8),
)


@settings(max_examples=300)
@given(name=names)
def test_a_quoted_name_comes_back_as_itself(name):
    assert value(f"key={literal(name)}") == name
    choice = OverridesParser.create().parse_override(f"key=x,{literal(name)}")
    assert value(f"key={[*choice.sweep_string_iterator()][1]}") == name


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_name_is_a_text(name):
    keys = ["data.category", "sweep", "++name", "+hydra.run.dir"]
    # A root of null is a documented choice.
    for key in keys if name == "null" else [*keys, "data.root"]:
        for many in (False, True):
            (word,) = quote_overrides([f"{key}={name}"], many)
            assert value(word) == name
            assert quote_overrides([word], many) == [word]


def test_what_hydra_means_by_it_stays():
    assert value(quote_overrides(["data.root=null"])[0]) is None
    assert quote_overrides(["data.root=${oc.env:HOME}/x"]) == ["data.root='${oc.env:HOME}/x'"]
    assert value(quote_overrides(["data.root='1.10'"])[0]) == "1.10"
    assert value(quote_overrides([r"data.root=a\,b"], multirun=True)[0]) == "a,b"
    assert quote_overrides(["-m", "seed=1,2", "trainer.max_epochs=1_0"])[1:] == [
        "seed=1,2",
        "trainer.max_epochs=1_0",
    ]
    assert quote_overrides(["model/teacher=resnet18"]) == ["model/teacher=resnet18"]
    assert value(quote_overrides(["data.root=a,b"])[0]) == "a,b"
    assert value(quote_overrides(["data.source.textures=[1.10,a]"])[0]) == ["1.10", "a"]
    (_, word) = quote_overrides(["-m", "data.category=choice(1.10,1e3)"])
    choice = OverridesParser.create().parse_override(word)
    assert [getattr(v, "text", v) for v in choice.sweep_iterator()] == ["1.10", "1e3"]


class Names:
    """A data set of the categories that a test asks for; stands where a source does."""

    found: tuple[str, ...] = ()
    textures: frozenset[str] = frozenset()

    def __init__(self, root, **_):
        self.root = root

    def categories(self):
        return sorted(Names.found)


def jobs_of(words):
    """The categories and folders of the jobs that Hydra would launch."""
    _, *words = expand_categories(["-m", *words])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        jobs = list_jobs(hydra.compose_config("train", words, run_mode=RunMode.MULTIRUN))
    return {job.config.data.category: job for job in jobs}


@settings(max_examples=3, deadline=None, derandomize=True, database=None)
@given(chosen=st.sets(names.filter(lambda n: "/" not in n and n.strip()), min_size=3, max_size=3))
def test_a_sweep_over_all_has_a_job_for_each_name(chosen):
    register_resolvers()
    Names.found = tuple(chosen)
    words = ["data=folder", "data.root=1.10", "data.category=all", "logger=none", "sweep=1e3"]
    jobs = jobs_of([*words, f"data.source={{_target_:{__name__}.Names,root:x}}"])
    assert set(jobs) == chosen
    assert len({job.folder for job in jobs.values()}) == len(chosen)
    assert {job.config.data.root for job in jobs.values()} == {"1.10"}
    assert {job.config.sweep for job in jobs.values()} == {"1e3"}


def test_what_a_config_file_sweeps_over_are_names_too(tmp_path):
    register_resolvers()
    (tmp_path / "study").mkdir()
    (tmp_path / "study/own.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      data.category: 1.1,1.10,null\n"
    )
    place = f"hydra.searchpath=[file://{tmp_path}]"
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        words = ["study=own", "logger=none", place]
        jobs = list_jobs(hydra.compose_config("train", words, run_mode=RunMode.MULTIRUN))
    assert [job.config.data.category for job in jobs] == ["1.1", "1.10", "null"]


def test_a_number_for_a_name_in_a_config_file_is_refused(tmp_path, forked, mvtec_root):
    (tmp_path / "conf/data").mkdir(parents=True)
    text = (conf_dir() / "data/mvtec.yaml").read_text()
    numbered = text.replace("category: bottle", "category: 1.10")
    (tmp_path / "conf/data/own.yaml").write_text(numbered)
    words = ["-cd", "conf", "data=own", f"data.root={mvtec_root}", "logger=none"]
    for more in ([], ["-m", "seed=0,1"]):
        done = forked("train", *words, *more, cwd=tmp_path)
        assert done.status == 2 and "data.category" in done.err and "Traceback" not in done.err
    assert not [*tmp_path.rglob("*.ckpt")]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A whole sweep over odd names, whose second run was lost and made again."""
    place = tmp_path_factory.mktemp("odd")
    odd = ["1.1", "1.10", "null", "größe", "a,b [x]=#'"]
    make_mvtec(place / "1_0", categories=odd, train=3, good=2, bad=2)
    before = Path.cwd()
    os.chdir(place)
    try:
        words = ["train", "-m", *SMALL, "data.root=1_0", "data.category=all", "sweep=2024_11_28"]
        statuses = [main(words)]
        folder = place / "multirun/2024_11_28"
        records = {json.loads(p.read_text())["data"]["category"]: p for p in found(folder)}
        kept = records["1.1"].stat().st_mtime_ns
        records["1.10"].unlink()
        statuses.append(main(words))
        again = {json.loads(p.read_text())["data"]["category"]: p for p in found(folder)}
        return odd, statuses, records, again, kept
    finally:
        os.chdir(before)


def found(folder):
    return [*folder.rglob("result.json")]


def test_a_real_sweep_over_odd_names_and_again(swept):
    odd, statuses, records, again, kept = swept
    assert statuses == [0, 0]
    assert set(records) == set(again) == set(odd)
    assert again["1.1"].stat().st_mtime_ns == kept
    assert records == again


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "/a", " "])
def test_a_sweep_needs_a_name(name):
    register_resolvers()
    with pytest.raises(UserError, match="sweep"):
        check_overrides(["-m", f"sweep={name}"])


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "name"])
def test_an_empty_place_is_refused(key):
    register_resolvers()
    with pytest.raises(UserError, match=key):
        check_overrides([f"{key}="])


def go_on(words, *run):
    """The words of the printed command, as a shell splits them."""
    line = resume_command(words, *run)
    assert line.count("resume with: ") == 1
    return shlex.split(line.partition("resume with: ")[2])[2:]


def test_a_setting_called_token_is_no_credential():
    words = ["model.masking.token=learned", "data.root=my data", "data.category=größe"]
    assert go_on(words, None, "runs/a b") == [*words, "hydra.run.dir=runs/a b"]
    assert mask_arguments(words) == words
    assert mask_arguments(["model={masking: {token: learned}}"]) == [
        "model={masking: {token: learned}}"
    ]
    assert mask_arguments(["hydra.run.dir=runs/token=learned"]) == [
        "hydra.run.dir=runs/token=learned"
    ]
    assert mask_arguments(["model.api_key=hunter2", "+x.token=hunter2"]) == [
        f"model.api_key={MASK}",
        f"+x.token={MASK}",
    ]


def test_a_credential_is_left_out_of_the_command_and_named(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    words = ["seed=1", "+logger.x.api_key=hunter2", "+note=0123456789abcdef"]
    line = resume_command(words, None, "runs/a")
    before, _, command = line.partition("resume with: ")
    assert "hunter2" not in line and "0123456789abcdef" not in line and MASK not in line
    assert "logger.x.api_key" in before and "note" in before
    assert shlex.split(command)[2:] == ["seed=1", "hydra.run.dir=runs/a"]


@pytest.mark.parametrize("folder", ["runs/a b", "runs/größe", "runs/a${b}", "'x'", "a\\,b", "1.10"])
def test_the_folder_to_go_on_in_is_read_as_it_is(folder):
    (word,) = quote_overrides(go_on([], None, folder))
    assert value(word.replace("hydra.run.dir", "key")) == folder


def test_a_folder_named_by_the_time_is_the_one_that_was_made():
    words = ["-m", "++sweep=${now:%H-%M}", "hydra.sweep.dir=x/${now:%H}"]
    assert go_on(words, "12-30", None, "x/12") == ["-m", "sweep=12-30", "hydra.sweep.dir=x/12"]
    assert go_on(["hydra.run.dir=${now:%H}"], None, "12") == ["hydra.run.dir=12"]


def test_all_arguments_of_lightnings_trainer_are_known():
    from lightning import Trainer

    assert set(inspect.signature(Trainer).parameters) == TRAINER_ARGUMENTS


@pytest.mark.parametrize(
    ("word", "held"),
    [
        ("trainer.limit_train_batches=0.5", 0.5),
        ("+trainer.limit_train_batches=0.5", 0.5),
        ("trainer.gradient_clip_val=1", 1),
        ("trainer.max_epochs=3", 3),
        ("trainer.strategy=ddp", "ddp"),
    ],
)
def test_the_trainers_arguments_need_no_plus(word, held):
    words = quote_overrides([word])
    check_overrides(words)
    key = word.lstrip("+").partition("=")[0]
    assert OmegaConf.select(compose_config(words, None), key) == held


@pytest.mark.parametrize("word", ["+trainer.limit_train_batch=1", "trainer.logger=false"])
def test_what_the_trainer_does_not_take_is_refused(word):
    register_resolvers()
    with pytest.raises(UserError, match=r"limit_train_batches|group logger"):
        check_overrides([word])


def test_removing_a_group_is_its_choice_none_or_refused():
    assert quote_overrides(["~logger", "~callbacks", "~model/masking=random"]) == [
        "logger=none",
        "callbacks=none",
        "model/masking=none",
    ]
    for word, named in (("~model", "rd4ad"), ("~data", "mvtec"), ("~seed", "seed")):
        with pytest.raises(UserError, match=named):
            check_overrides([word])
    check_overrides(["~trainer.log_every_n_steps"])
    check_overrides(["~logger.wandb"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data.batch_size", "data.train_batch_size"),
        ("data.eval_batch_size", "data.test_batch_size"),
        ("model.lr", "optimizer.lr"),
        ("lr", "optimizer.lr"),
        ("trainer.epochs", "trainer.max_epochs"),
        ("trainer.gpus", "trainer.devices"),
        ("workers", "data.num_workers"),
        ("data.class", "data.category"),
        ("category", "data.category"),
        ("model.backbone", "model/teacher"),
        ("trainer.limit_train_batch", "trainer.limit_train_batches"),
        ("model.masking.rato", "model.masking.ratio"),
        ("masking.block_size", "model.masking.block_size"),
        ("threshold.fpr", "threshold.false_positive_rate"),
        ("qqqqqq", None),
    ],
)
def test_the_likeliest_key_is_suggested(typed, meant):
    from anomalib_rd.cli.errors import dotted, trainer_keys

    register_resolvers()
    block = compose_config(["model/masking=block"], None)
    known = dotted(OmegaConf.to_container(block, resolve=False))
    assert likeliest(typed, [*known, *trainer_keys()]) == meant


def test_glob_makes_a_job_of_each_choice():
    register_resolvers()
    words = ["-m", "model=glob(*rd*)", "logger=none", "data.category=brick"]
    check_overrides(words)
    _, *words = expand_categories(words)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        jobs = list_jobs(hydra.compose_config("train", words, run_mode=RunMode.MULTIRUN))
    assert [job.config.model.name for job in jobs] == ["fmg_rd", "rd4ad"]


def test_from_another_folder_paths_are_as_typed(tmp_path, forked):
    make_mvtec(tmp_path / "größe", categories=["1.10"], train=3, good=2, bad=2)
    words = [*SMALL, "data.root=größe", "data.category=1.10", "hydra.job.chdir=true"]
    done = forked("train", *words, "hydra.run.dir=r", cwd=tmp_path)
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "r/result.json").read_text())["data"]["category"] == "1.10"
    done = forked("train", "-m", *words, "sweep=s", cwd=tmp_path)
    assert done.status == 0 and len(found(tmp_path / "multirun/s")) == 1, done.err


@pytest.mark.slow
def test_each_run_of_a_multirun_has_its_own_id_in_wandb(tmp_path, forked, mvtec_root):
    words = [*SMALL, f"data.root={mvtec_root}", "data.category=cloth", "logger=wandb"]
    own = {"WANDB_RUN_ID": "mine", "WANDB_NAME": "x", "WANDB_MODE": "offline"}
    done = forked("train", "-m", *words, "seed=0,1", "sweep=s", cwd=tmp_path, env=own)
    assert done.status == 0 and done.err.count("WANDB_RUN_ID") == 1, done.err
    ids = {path.read_text() for path in tmp_path.glob("multirun/s/*/*/wandb-id.txt")}
    assert len(ids) == 2 and "mine" not in ids
    done = forked("train", *words, "hydra.run.dir=r", cwd=tmp_path, env=own)
    assert done.status == 0 and [*tmp_path.glob("r/wandb/offline-run-*-mine")]
    one = ["+logger.wandb.id=mine", "seed=0,1", "sweep=t"]
    done = forked("train", "-m", *words, *one, cwd=tmp_path)
    assert done.status == 2 and "logger.wandb.id" in done.err


def test_a_missing_data_set_is_named_once_before_any_job(tmp_path, forked):
    words = ["data=mvtec", "data.root=none", "logger=none", "seed=0,1,2", "sweep=s"]
    for more in (["data.category=cloth"], ["study=mvtec15"]):
        done = forked("train", "-m", *words, *more, cwd=tmp_path)
        assert done.status == 2 and done.err.count("none does not exist") == 1, done.err
        assert not [*tmp_path.rglob("failure.json")]


def test_square_brackets_in_names_are_shown(tmp_path, forked):
    make_mvtec(tmp_path / "x[" / "b]", categories=["p[left]", "q"], train=2, good=1, bad=1)
    for verb in ("list", "check"):
        done = forked("data", verb, "data=mvtec", "data.root=x[/b]", cwd=tmp_path)
        assert done.status == 0 and "p[left]" in done.out and "x[/b]" in done.out, done.err


def test_own_code_that_does_not_fit_is_one_line(tmp_path, forked, mvtec_root):
    words = [*SMALL, f"data.root={mvtec_root}", "data.category=cloth"]
    own = "model.fusion._target_=types.SimpleNamespace"
    done = forked("train", *words, own, cwd=tmp_path)
    assert done.status == 2 and "Traceback" not in done.err
    assert "model.fusion (types.SimpleNamespace)" in done.err
    done = forked("train", "-m", "--cfg", "hydra", cwd=tmp_path)
    assert done.status == 2 and "Traceback" not in done.err


def test_a_value_that_hydra_cannot_read_is_quoted_for_the_user(tmp_path, forked):
    done = forked("train", "optimized_metric=a b(c", cwd=tmp_path)
    pasted = shlex.split(done.err.rpartition(": ")[2])
    assert done.status == 2 and [
        value(word.replace("optimized_metric", "key")) for word in pasted
    ] == ["a b(c"]


def test_the_printed_command_starts_this_program(tmp_path):
    """``python -m anomalib_rd`` where there is no script on the path."""
    line = "import sys; sys.argv = ['/x/anomalib_rd/__main__.py']; "
    line += "from anomalib_rd.cli.train import program; print(program())"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
    again = shlex.split(done.stdout)
    assert again[1:] == ["-m", "anomalib_rd"]
    version = subprocess.run([*again, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert version.returncode == 0
