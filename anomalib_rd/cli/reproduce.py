"""``anomalib-rd train --from RESULT``: reproduce a recorded run and compare the metrics.

The new run also writes ``reproduction.json``: ``record, sha256`` of the original, ``overrides``,
``differences`` of machine, software and images (a line each), and the ``metrics`` that differ
(``{name: [original, new]}``).
"""

import logging
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anomalib_rd.cli.common import Parser
from anomalib_rd.cli.config import compose_config, conf_dir, is_group, parse_overrides
from anomalib_rd.cli.override_checks import check_types
from anomalib_rd.cli.overrides import require_current_config
from anomalib_rd.components import (
    build,
    require_existing_data,
    require_inside,
    require_known_code,
    require_known_interpolations,
    require_mappings,
    require_plain,
)
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import expand_home, sha256_file, to_json_types, write_json
from anomalib_rd.results.identity import require_same_teacher
from anomalib_rd.results.provenance import (
    MASK,
    describe_hardware,
    git_state,
    mask_arguments,
    software_versions,
)
from anomalib_rd.results.record import RESULT, read_record

REPRODUCTION = "reproduction.json"
FLAG, TRUST, OTHER_TEACHER = "--from", "--trust", "--other-teacher"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reproduction:
    """A run to reproduce.

    Attributes:
        path: of its record.
        record: its content.
        overrides: intended changes.
        trust: whether its config may name code from outside of this project.
        other_teacher: whether the teacher may differ from the record's.
    """

    path: Path
    record: dict[str, Any]
    overrides: list[str]
    trust: bool = False
    other_teacher: bool = False


def split_options(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """The options ``records`` (at most one), ``trust, other_teacher``, and Hydra's arguments.

    Raises:
        UserError: ``--from`` without a record or twice, or its options without it.
    """
    parser = Parser(prog="anomalib-rd train", add_help=False, allow_abbrev=False)
    parser.add_argument(FLAG, dest="records", action="append", default=[])
    parser.add_argument(TRUST, action="store_true")
    parser.add_argument(OTHER_TEACHER, action="store_true")
    options, rest = parser.parse_known_args(arguments)
    if not options.records and (options.trust or options.other_teacher):
        raise UserError(f"train: {TRUST} and {OTHER_TEACHER} require {FLAG} RESULT")
    if len(options.records) > 1 or "" in options.records:
        raise UserError(f"train: {FLAG} takes one record: {FLAG} RUN/{RESULT}")
    return options, rest


def read_reproduction(options: Namespace, arguments: list[str]) -> Reproduction:
    """Read the record of a run to reproduce.

    Raises:
        UserError: ``-m``; no record; a record without ``config_as_written``, of one category of a
            unified run, or that could execute foreign code without ``--trust``.
    """
    if {"-m", "--multirun"} & set(arguments):
        raise UserError(f"train: {FLAG} reproduces one run; omit -m")
    path, trust = expand_home(options.records[0]), options.trust
    path = path / RESULT if path.is_dir() else path
    record = read_record(path)
    written = record.get("config_as_written")
    if not isinstance(written, dict):
        command = (record.get("provenance") or {}).get("command")
        raise UserError(
            f"{path}: has no config_as_written, like the records of older versions; run its "
            f"command instead: {command or 'not recorded'}"
        )
    # "defaults" would make Hydra read other files; "hydra" belongs to this machine.
    for key in {"defaults", "hydra"} & set(written):
        raise UserError(f"{path}: unexpected key {key!r} in its config_as_written")
    require_current_config(path, written)
    if not trust:
        require_known_interpolations(path, written)
    require_known_code(path, written, trust)
    require_mappings(path, written)
    if written["data"].get("unified") and "categories" not in record:
        raise UserError(
            f"{path}: one category of a unified run; give the {RESULT} of the run itself"
        )
    overrides = [arguments[index] for index in parse_overrides(arguments)]
    return Reproduction(path, record, overrides, trust, options.other_teacher)


@contextmanager
def use_recorded_config(reproduction: Reproduction, arguments: list[str]) -> Iterator[list[str]]:
    """Hydra's arguments that make the recorded config the primary one, inside the block.

    Groups among the overrides replace the recorded part by the current choice.

    Raises:
        UserError: a value of the wrong type, or a group that is not in the record.
    """
    config = OmegaConf.create(reproduction.record["config_as_written"])
    config.run_dir = "${hydra:runtime.output_dir}"
    overrides = parse_overrides(arguments)
    groups = {i: o for i, o in overrides.items() if is_group(o.key_or_group)}
    if groups:
        current = compose_config([arguments[i] for i in groups])
        for index, override in groups.items():
            key = override.key_or_group.replace("/", ".")
            if not isinstance(OmegaConf.select(config, key), DictConfig):
                raise UserError(f"{arguments[index]}: not a group of the recorded config")
            OmegaConf.update(config, key, OmegaConf.select(current, key), merge=False)
    check_types([o for i, o in overrides.items() if i not in groups], config)
    config["hydra"] = OmegaConf.load(conf_dir() / "train.yaml").hydra
    # Hydra does not compose the recorded groups, so it does not know their choices.
    choices = dict(reproduction.record.get("choices") or {})
    choices |= {o.key_or_group: str(o.value()) for o in groups.values()}
    OmegaConf.update(config, "hydra.runtime.choices", choices, force_add=True)
    with TemporaryDirectory() as folder:
        OmegaConf.save(config, Path(folder, "train.yaml"))
        yield ["--config-path", folder, *(a for i, a in enumerate(arguments) if i not in groups)]


def report_differences(reproduction: Reproduction, cfg: DictConfig) -> list[str]:
    """Compare machine, software and images with the record, and warn of each difference.

    Raises:
        UserError: a masked value was not set, the teacher differs, or the config would execute
            foreign code.
    """
    from anomalib_rd.data import dataset_fingerprint
    from anomalib_rd.training.build import make_data

    path, record = reproduction.path, reproduction.record
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    _require_safe(reproduction, resolved)
    for key in _masked_keys(resolved):
        raise UserError(f"{key}: masked in the record as a credential; set {key}=...")
    _require_recorded_teacher(reproduction, cfg)
    differences = [*_provenance_differences(record.get("provenance") or {})]
    data = make_data(cfg)
    if dataset_fingerprint(data.split, data.root) != record["data"]["fingerprint"]:
        differences.append(f"the images in {data.root} are not the recorded ones (fingerprint)")
    for difference in differences:
        log.warning("%s: %s; the metrics may differ", path, difference)
    return differences


def _require_safe(reproduction: Reproduction, resolved: Mapping[str, Any]) -> None:
    """Refuse a resolved config that could execute foreign code, unless the user trusts it."""
    if reproduction.trust:
        return
    path = reproduction.path
    require_plain(path, resolved)
    require_known_code(path, resolved, trust=False)
    folders = [Path(resolved["run_dir"]), *map(Path, filter(None, [os.environ.get("WANDB_DIR")]))]
    given = {override.key_or_group for override in parse_overrides(reproduction.overrides).values()}
    require_inside(path, resolved, folders, given)
    require_existing_data(path, resolved, given)


def _masked_keys(config: Any, key: str = "") -> Iterator[str]:
    """The keys whose values were not recorded, as credentials."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _masked_keys(value, f"{key}.{name}" if key else str(name))
    elif config == MASK:
        yield key


def _require_recorded_teacher(reproduction: Reproduction, cfg: DictConfig) -> None:
    """Refuse weights that differ from the record's under the same name.

    Random weights follow from the seed, and a teacher of another name is intended.
    """
    from anomalib_rd.networks.teacher import state_sha256

    recorded, spec = reproduction.record["config"]["model"]["teacher"], cfg.model.teacher
    same_network = all(recorded.get(key) == spec.get(key) for key in ("name", "strides"))
    if reproduction.other_teacher or not same_network or recorded.get("weights") == "random":
        return
    require_same_teacher(
        reproduction.path,
        reproduction.record["model"].get("teacher_sha256"),
        state_sha256(build(spec, "model.teacher")),
        recorded,
        spec,
        f"set model.teacher.weights=FILE, or accept this teacher with {OTHER_TEACHER}",
    )


def _provenance_differences(recorded: Mapping[str, Any]) -> Iterator[str]:
    """Differences of versions, CPU and commit, a line each."""
    software = recorded.get("software") or {}
    pairs: dict[str, tuple[Any, Any]] = {
        name: (software.get(name), now) for name, now in software_versions().items()
    }
    pairs["CPU"] = ((recorded.get("hardware") or {}).get("cpu"), describe_hardware()["cpu"])
    commits = [(state or {}).get("commit") for state in (recorded.get("git"), git_state())]
    pairs["commit"] = (commits[0], commits[1])
    for name, (before, now) in pairs.items():
        if before is not None and before != now:
            yield f"{name} {before} in the record, {now} here"


def report_reproduction(reproduction: Reproduction, run_dir: Path, differences: list[str]) -> None:
    """Print whether the metrics equal the recorded ones, and write ``reproduction.json``."""
    new, recorded = read_record(run_dir)["metrics"], reproduction.record["metrics"]
    # As JSON, where NaN is null and thus equal to NaN.
    pairs = {n: to_json_types([recorded.get(n), new.get(n)]) for n in {**recorded, **new}}
    metrics = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    write_json(
        run_dir / REPRODUCTION,
        {
            "record": str(reproduction.path),
            "sha256": sha256_file(reproduction.path),
            "overrides": mask_arguments(reproduction.overrides),
            "differences": differences,
            "metrics": metrics,
        },
    )
    if not metrics:
        print(f"All metrics equal those of {reproduction.path} exactly")
    for name, (before, now) in metrics.items():
        print(f"{name}: {before} in {reproduction.path}, {now} here")
