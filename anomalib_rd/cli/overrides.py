"""Overrides rewritten for Hydra: quoted names and paths, renamed keys, categories, points.

In Hydra's grammar ``1.10`` is a number, ``a,b`` a sweep, and ``größe`` an error. In names and paths
they are text and are quoted here. Quotes, escapes, interpolations and sweep functions keep their
meaning.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse as parse_interpolation

from anomalib_rd.cli.config import (
    compose_config,
    conf_dir,
    config_folder,
    is_group,
    literal,
    parse_overrides,
    single_quoted,
)
from anomalib_rd.errors import UserError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CATEGORY, UNIFIED = "data.category", "data.unified"
POINT = "point"
"""The config group of a study's named points."""
CATEGORY_GROUPS = {"all", "textures", "objects"}
NEVER_NULL = _names(
    "data.category sweep name run_dir data.name model.name model.teacher.name "
    "model.teacher.weights hydra.run.dir hydra.sweep.dir hydra.sweep.subdir hydra.job.name"
)
"""Keys of names and paths that cannot be null: ``null`` is text."""
TEXT_KEYS = _names(
    "root name weights folder file filename path dir dirpath subdir save_dir default_root_dir "
    "submitit_folder normal defect masks normal_test project entity group job_type id "
    "experiment_name run_name tracking_uri partition account qos"
)
"""Last parts of the other keys of names and paths, which can be null."""
LIST_KEYS = {"category", "textures", "tags", "searchpath"}
"""Last parts of keys that take a name or a list ``[a,b]``."""
NEVER_SWEPT = {"sweep", "run_dir"}
"""Keys of the multirun itself: a comma in their value is text."""
FLAGS_WITH_VALUE = _names(
    "-cd --config-dir -cp --config-path -cn --config-name -c --cfg -p --package -i --info "
    "--experimental-rerun"
)
TRAINER_ARGUMENTS = _names(
    "accelerator accumulate_grad_batches barebones benchmark callbacks check_val_every_n_epoch "
    "default_root_dir detect_anomaly deterministic devices enable_autolog_hparams "
    "enable_checkpointing enable_model_summary enable_progress_bar fast_dev_run "
    "gradient_clip_algorithm gradient_clip_val inference_mode limit_predict_batches "
    "limit_test_batches limit_train_batches limit_val_batches log_every_n_steps logger "
    "max_epochs max_steps max_time min_epochs min_steps model_registry num_nodes "
    "num_sanity_val_steps overfit_batches plugins precision profiler "
    "reload_dataloaders_every_n_epochs strategy sync_batchnorm use_distributed_sampler "
    "val_check_interval"
)
"""Arguments of Lightning's Trainer. Importing Lightning would take seconds."""
RENAMED = {
    "averaging": "model.ema_decay",
    "averaging.decay": "model.ema_decay",
    "averaging=ema": "model.ema_decay=0.98",
    "averaging=none": "model.ema_decay=null",
    "ablation": "study",
    "ablation=attention": "study=attention experiment=none data.category=all model/masking=random",
    "ablation=components": "study=components experiment=none data.category=all",
    "ablation=loss": "study=loss experiment=none data.category=all model=fmg_rd",
    "ablation=mask_ratio": "study=mask_ratio experiment=none data.category=all",
    "ablation=mask_strategy": "study=mask_strategy experiment=none data.category=all",
    "ablation=teacher": "study=teacher experiment=none data.category=all model=fmg_rd"
    " model/teacher=efficientnet_lite0,resnet18,resnet50,wide_resnet50_2",
    "data.epochs": "trainer.max_epochs",
    "data.pixel_metrics_on": "metrics.pixels_on",
    "data.val": "validation.kind",
    "data.val_share": "validation.fraction",
    "gallery": "report.gallery",
    "heatmaps": "report.heatmaps",
    "model.fit": "model.train",
    "model.student.design=mirror": "model.student.design=auto",
    "model/fusion": "model.fusion.attention",
    "model/fusion=attention": "model.fusion.attention=cbam",
    "model/fusion=mff_oce": "model.fusion.attention=none",
    "model/student": "model.student.design",
    "model/student=mirror": "model.student.design=auto",
    "objective": "optimized_metric",
    "objective_on_test": "optimize_on_test",
    "page": "report.html",
    "pixel_bins": "metrics.max_bins",
    "pro_rd4ad": "metrics.pro_rd4ad",
    "study/choices": "point",
    "study/masks": "point",
    "study/sets": "point",
    "test_curve": "test_during_training",
    "threshold=f1max": "threshold.kind=f1max",
    "threshold=none": "threshold.kind=none",
    "threshold=quantile": "threshold.kind=quantile",
}
"""Keys and choices of older versions, and what replaces them."""

OVERRIDE = re.compile(
    r"(?P<prefix>\+{0,2})(?P<key>[^\s=@'\"+~-][^\s=@]*)(?P<at>@[^\s=]*)?=(?P<value>.*)", re.DOTALL
)
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
SWEEP_OF_ELEMENTS = re.compile(r"(choice|shuffle|sort)\((.*)\)", re.DOTALL)
FUNCTION = re.compile(r"(range|glob|interval|tag|str|int|float|bool)\(.*\)", re.DOTALL)
ESCAPE = re.compile(r"\\[\\()\[\]{}:=, \t]")


def quote_overrides(arguments: list[str], multirun: bool | None = None) -> list[str]:
    """Quote names and paths, and complete what Hydra would not accept.

    ``trainer.X`` of an argument that only Lightning knows becomes ``++trainer.X``. ``~GROUP`` and
    ``GROUP=null`` become ``GROUP=none`` if the group has this choice, such as ``logger``.

    Args:
        arguments: as typed.
        multirun: whether commas separate the values of a sweep; None: decided by the flags.

    Raises:
        UserError: a key of an older version, naming the new one.
    """
    if multirun is None:
        multirun = is_multirun(arguments)
    values = {i + 1 for i, argument in enumerate(arguments) if argument in FLAGS_WITH_VALUE}
    return [a if i in values else _quote_override(a, multirun) for i, a in enumerate(arguments)]


def is_multirun(arguments: list[str]) -> bool:
    """Whether the arguments request several jobs."""
    # argparse accepts any unambiguous beginning of a flag.
    flags = any(a == "-m" or re.fullmatch(r"--mu\w*", a) for a in arguments)
    modes = [a.rpartition("=")[2] for a in arguments if "hydra.mode=" in a]
    return flags or modes[-1:] == ["MULTIRUN"]


def _quote_override(argument: str, multirun: bool) -> str:
    _require_current_name(argument)
    group, _, choice = argument.removeprefix("~").partition("=")
    removed = argument.startswith("~")
    if (removed or choice == "null") and (conf_dir() / group / "none.yaml").is_file():
        return f"{group}=none"
    match = None if removed else OVERRIDE.fullmatch(argument)
    if not match:
        return argument
    prefix, key, at, value = match["prefix"], match["key"], match["at"] or "", match["value"]
    last = key.rpartition(".")[2]
    if not at and (key in NEVER_NULL or last in LIST_KEYS or ("." in key and last in TEXT_KEYS)):
        if multirun and key not in NEVER_SWEPT and not key.startswith("hydra."):
            value = _quote_sweep(key, value)
        else:
            # Without a sweep, commas separate the categories of a list.
            parts = [*split(value)]
            if key == CATEGORY and not value.startswith("[") and len(parts) > 1:
                value = f"[{','.join(parts)}]"
            value = quote_value(key, value)
    if not prefix and key.startswith("trainer.") and key[8:] in TRAINER_ARGUMENTS:
        prefix = "" if key[8:] in OmegaConf.load(conf_dir() / "trainer/auto.yaml") else "++"
    return f"{prefix}{key}{at}={value}"


def _require_current_name(argument: str) -> None:
    key, _, value = argument.lstrip("+~").partition("=")
    old = f"{key}={value}" if f"{key}={value}" in RENAMED else key
    if old in RENAMED:
        where = "" if argument == old else f"{argument}: "
        raise UserError(f"{where}{old} has been replaced by {RENAMED[old]}")


def require_current_config(source: object, config: Mapping[Any, Any]) -> None:
    """Refuse a config with keys of an older version, which would have no effect.

    Args:
        source: file of the config, for the message.
        config: in plain types.

    Raises:
        UserError: naming the key and its replacement.
    """
    absent = object()
    for old, new in RENAMED.items():
        key, _, choice = old.partition("=")
        node: Any = config
        for name in key.split("."):
            node = node.get(name, absent) if isinstance(node, Mapping) else absent
        if node is not absent and (not choice or node == choice):
            raise UserError(f"{source}: {old}, of an older version, has been replaced by {new}")


def override_key(argument: str) -> str | None:
    """The key that an override sets, without prefix and package; None if it is no override."""
    match = OVERRIDE.fullmatch(argument)
    return match["key"] if match else None


def _quote_sweep(key: str, value: str) -> str:
    if call := SWEEP_OF_ELEMENTS.fullmatch(value):
        elements = [
            part if re.match(r"(reverse|shuffle)\s*=", part) else _quote_sweep(key, part)
            for part in split(call[2])
        ]
        return f"{call[1]}({','.join(elements)})"
    if FUNCTION.fullmatch(value):
        return value
    return ",".join(quote_value(key, part) for part in split(value))


def quote_value(key: str, value: str) -> str:
    """Quote a name or path for Hydra, unless it is quoted or null."""
    if not value or QUOTED.fullmatch(value):
        return value
    if value.lower() == "null" and key not in NEVER_NULL:
        return value
    if key.rpartition(".")[2] in LIST_KEYS and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(quote_value(key, part) for part in split(value[1:-1]))}]"
    if "${" in value:
        try:
            parse_interpolation(value)
        except GrammarParseError:
            pass
        else:
            return single_quoted(value)
    if ESCAPE.search(value):
        try:
            text = OverridesParser.create().parse_override(f"key={value}").value()
        except HydraException:
            text = None
        value = text if isinstance(text, str) else value
    return literal(value)


def split(text: str) -> Iterator[str]:
    """The parts between commas that are outside of quotes and brackets, stripped."""
    part, quote, depth, escaped = "", "", 0, False
    for character in text:
        if character == "," and not (quote or depth or escaped):
            yield part.strip()
            part = ""
            continue
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not part.strip():
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        part += character
    yield part.strip()


def require_text(key: str, value: object) -> None:
    """Refuse a number in place of a name, such as ``category: 1.10``, which YAML reads as 1.1."""
    if isinstance(value, bool | int | float):
        raise UserError(f"{key}: a config file has the number {value} here; quote the name there")


def expand_categories(arguments: list[str]) -> list[str]:
    """Replace groups and lists of categories by the names of the categories.

    With ``-m`` there is a job for each; with ``data.unified=true`` they are the list of one model.
    The categories are those of the command line, else of the study, else of the data set.

    Raises:
        UserError: several data sets, ``data.unified`` swept, unknown categories, a unified model
            of one category.
    """
    multirun = is_multirun(arguments)
    arguments = quote_overrides(arguments, multirun)
    overrides = parse_overrides(arguments)
    swept = {o.key_or_group for o in overrides.values() if o.is_sweep_override()}
    if "data" in swept:
        raise UserError("data=...: a multirun has one data set; start one for each")
    if UNIFIED in swept:
        raise UserError(
            f"{UNIFIED}: a multirun trains on each category or on all; start both, with the same "
            "sweep=NAME to have them in one table"
        )
    given = [i for i, o in overrides.items() if o.key_or_group == CATEGORY]
    listed = any(isinstance(overrides[i].value(), list) for i in given)
    if not (multirun or listed or any(o.key_or_group == UNIFIED for o in overrides.values())):
        return arguments  # without -m Hydra refuses a sweep
    shared = [
        arguments[i]
        for i, override in overrides.items()
        if not override.is_sweep_override() and override.key_or_group != CATEGORY
    ]
    cfg = compose_config(shared, config_folder(arguments))
    params = (cfg.hydra.sweeper.get("params") or {}) if multirun else {}
    if given:
        wanted = category_names(overrides[given[-1]])
    elif (study := params.get(CATEGORY)) is not None:
        quoted = quote_overrides([f"{CATEGORY}={study}"], multirun)
        wanted = category_names(*parse_overrides(quoted).values())
    else:
        default = cfg.data.category
        wanted = list(default) if isinstance(default, ListConfig) else [default]
        for name in wanted:
            require_text(CATEGORY, name)
    if not cfg.data.unified and not (multirun and (given or CATEGORY_GROUPS & set(wanted))):
        return arguments

    from hydra.utils import instantiate

    from anomalib_rd.data.sources.source import select_categories, select_unified_categories

    select = select_unified_categories if cfg.data.unified else select_categories
    names = ",".join(literal(str(name)) for name in select(instantiate(cfg.data.source), wanted))
    index = given[-1] if given else len(arguments)
    arguments[index : index + 1] = [f"{CATEGORY}={f'[{names}]' if cfg.data.unified else names}"]
    return arguments


def category_names(override: Any) -> list[str]:
    """All category names in an override, including lists and sweeps."""

    def names(value: Any) -> Iterator[str]:
        if isinstance(value, list):
            for item in value:
                yield from names(item)
        else:  # in a sweep Hydra keeps the quotes of a text
            yield str(getattr(value, "text", value))

    swept = override.is_sweep_override()
    return [*names([*override.sweep_iterator()] if swept else override.value())]


def register_points(arguments: Sequence[str]) -> None:
    """Make the points of the chosen study a config group, which Hydra composes and sweeps.

    ``hydra.sweeper.params.point`` of a study maps the name of each point to its overrides.
    Launchers pass Hydra's config store on to the processes of the jobs.

    Raises:
        UserError: a point is chosen without a study that has points.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.repo.pop(POINT, None)
    studies = [argument.partition("=")[2] for argument in arguments if argument[:6] == "study="]
    for folder in (conf_dir(), config_folder(arguments)):
        path = Path(folder or "", "study", f"{studies[-1] if studies else ''}.yaml")
        if folder and path.is_file():
            points = OmegaConf.select(OmegaConf.load(path), f"hydra.sweeper.params.{POINT}") or {}
            for name, overrides in points.items():
                store.store(str(name), _point_config(overrides), POINT, "_global_")
    for argument in arguments:
        if argument.startswith(f"{POINT}=") and POINT not in store.repo:
            raise UserError(f"{argument}: needs a study with points, study=NAME")


def _point_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The overrides of a point as a config: defaults list and keys."""
    defaults: list[Any] = []
    keys = OmegaConf.create()
    quoted = quote_overrides(list(overrides), multirun=False)
    for override in parse_overrides(quoted).values():
        if is_group(override.key_or_group):
            defaults.append({f"override /{override.key_or_group}": override.value()})
        else:
            OmegaConf.update(keys, override.key_or_group, override.value())
    config: Any = OmegaConf.to_container(keys)
    return {"defaults": defaults, **config}
