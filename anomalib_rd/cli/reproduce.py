"""``anomalib-rd train --from RESULT``: a recorded run again, and whether it comes out the same.

The run leaves ``repeat.json`` beside its own record: ``record, sha256`` of what was repeated,
``overrides``, ``said`` (what was other than there, a line each) and ``metrics`` that came out other
(``{name: [there, here]}``).
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anomalib_rd.cli.categories import composed, parsed
from anomalib_rd.cli.config import conf_dir
from anomalib_rd.cli.values import check_types, is_group
from anomalib_rd.components import (
    build,
    require_data_there,
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

log = logging.getLogger(__name__)

REPEAT = "repeat.json"
FLAG, TRUST, OTHER_TEACHER = "--from", "--trust", "--other-teacher"


@dataclass(frozen=True)
class Reproduction:
    """What is to be repeated.

    Attributes:
        path: of the record.
        record: its content.
        overrides: what is to be other than there.
        trust: whether the record's config may name code from outside of this project.
        other_teacher: whether the teacher may be another one than the record's.
    """

    path: Path
    record: dict[str, Any]
    overrides: list[str]
    trust: bool = False
    other_teacher: bool = False


def asked_for(words: list[str]) -> tuple[Path | None, set[str], list[str]]:
    """What follows ``--from``, which of its switches are there, and the other words.

    Raises:
        UserError: ``--from`` without a record or twice, or one of its switches alone.
    """
    found, rest = [], []
    switches: set[str] = set()
    left = iter(words)
    for word in left:
        if word == FLAG:
            found.append(next(left, ""))
        elif word.startswith(f"{FLAG}="):
            found.append(word.partition("=")[2])
        elif word in (TRUST, OTHER_TEACHER):
            switches.add(word)
        else:
            rest.append(word)
    if switches and not found:
        raise UserError(f"train: {min(switches)} goes with {FLAG} RESULT")
    if found and (len(found) > 1 or not found[0] or found[0].startswith("-")):
        raise UserError(f"train: {FLAG} takes one record: {FLAG} RUN/{RESULT}")
    return (expand_home(found[0]) if found else None), switches, rest


def read_repeat(path: Path, switches: set[str], words: list[str]) -> Reproduction:
    """The record, and how its run is to be repeated.

    Raises:
        UserError: no record, one without its config as written or of one of several categories,
            one that could have foreign code run without ``--trust``, or ``-m``.
    """
    trust = TRUST in switches
    if {"-m", "--multirun"} & set(words):
        raise UserError(f"train: {FLAG} repeats one run; leave -m out")
    path = path / RESULT if path.is_dir() else path
    record = read_record(path)
    written = record.get("config_as_written")
    if not isinstance(written, dict):
        command = (record.get("provenance") or {}).get("command")
        raise UserError(
            f"{path}: lacks its config as written, which older versions did not keep; "
            f"give its command again: {command or 'it is not recorded'}"
        )
    # Hydra would read other files by the first, and the second is this machine's own.
    for key in {"defaults", "hydra"} & set(written):
        raise UserError(f"{path}: its config as written has {key!r}, which no record holds")
    if not trust:
        require_known_interpolations(path, written)
    require_known_code(path, written, trust)
    require_mappings(path, written)
    if written["data"].get("unified") and "categories" not in record:
        raise UserError(f"{path}: of one category of a run of several; give the run's own {RESULT}")
    overrides = [words[place] for place in parsed(words)]
    return Reproduction(path, record, overrides, trust, OTHER_TEACHER in switches)


def require_safe(repeat: Reproduction, resolved: Mapping[str, Any]) -> None:
    """Check what the config as written has become, before anything is made from it.

    Raises:
        UserError: it would have foreign code run, and the user does not trust the record.
    """
    if repeat.trust:
        return
    require_plain(repeat.path, resolved)
    require_known_code(repeat.path, resolved, trust=False)
    folders = [Path(resolved["run_dir"]), *map(Path, filter(None, [os.environ.get("WANDB_DIR")]))]
    given = {one.key_or_group for one in parsed(repeat.overrides).values()}
    require_inside(repeat.path, resolved, folders, given)
    require_data_there(repeat.path, resolved, given)


@contextmanager
def as_primary(repeat: Reproduction, words: list[str]) -> Iterator[list[str]]:
    """The words for Hydra to compose the recorded config with, while the block lasts.

    Groups among the overrides replace the recorded part by today's choice.

    Raises:
        UserError: a value of the wrong type, or a group that the record lacks.
    """
    config = OmegaConf.create(repeat.record["config_as_written"])
    config.run_dir = "${hydra:runtime.output_dir}"
    overrides = parsed(words)
    groups = {i: o for i, o in overrides.items() if is_group(o)}
    if groups:
        today = composed([words[i] for i in groups], None)
        for place, override in groups.items():
            key = override.key_or_group.replace("/", ".")
            if not isinstance(OmegaConf.select(config, key), DictConfig):
                raise UserError(f"{words[place]}: {FLAG} takes the groups that a record has")
            OmegaConf.update(config, key, OmegaConf.select(today, key), merge=False)
    check_types([o for i, o in overrides.items() if i not in groups], config)
    config["hydra"] = OmegaConf.load(conf_dir() / "train.yaml").hydra
    # Hydra knows the choices of what it composes itself: here of nothing.
    choices = dict(repeat.record.get("choices") or {})
    choices |= {o.key_or_group: str(o.value()) for o in groups.values()}
    OmegaConf.update(config, "hydra.runtime.choices", choices, force_add=True)
    with TemporaryDirectory() as folder:
        OmegaConf.save(config, Path(folder, "train.yaml"))
        yield ["--config-path", folder, *(w for i, w in enumerate(words) if i not in groups)]


def report_differences(repeat: Reproduction, cfg: DictConfig) -> list[str]:
    """Hold this machine, its software and the images against the record; a warning for each.

    Raises:
        UserError: a value that the record masked was not given anew, the teacher is another one
            that nobody asked for, or what `require_safe` says.
    """
    from anomalib_rd.data import dataset_fingerprint
    from anomalib_rd.training.data import make_data

    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    require_safe(repeat, resolved)
    for key in masked(resolved):
        raise UserError(f"{key}: the record does not tell it; say {key}=...")
    require_records_teacher(repeat, cfg)
    lines = [*versions(repeat.record.get("provenance") or {})]
    data = make_data(cfg)
    here, there = dataset_fingerprint(data.split, data.root), repeat.record["data"]["fingerprint"]
    if here != there:
        lines.append(f"the images in {data.root} are not those of the record (fingerprint differs)")
    for line in lines:
        log.warning("%s: %s; the metrics may differ", repeat.path, line)
    return lines


def require_records_teacher(repeat: Reproduction, cfg: DictConfig) -> None:
    """Refuse other weights than the record's under the same name.

    Random ones follow from the seed, and a teacher of another name is asked for.

    Raises:
        UserError: unless ``--other-teacher`` is among the words.
    """
    from anomalib_rd.networks.teacher import state_sha256

    kept, spec = repeat.record["config"]["model"]["teacher"], cfg.model.teacher
    same_network = all(kept.get(key) == spec.get(key) for key in ("name", "strides"))
    if repeat.other_teacher or not same_network or kept.get("weights") == "random":
        return
    require_same_teacher(
        repeat.path,
        repeat.record["model"].get("teacher_sha256"),
        state_sha256(build(spec, "model.teacher")),
        kept,
        spec,
        f"say model.teacher.weights=FILE, or take this teacher all the same with {OTHER_TEACHER}",
    )


def versions(there: Mapping[str, Any]) -> Iterator[str]:
    """Each part of the provenance that is other here, with both values."""
    commits = [(found or {}).get("commit") for found in (there.get("git"), git_state())]
    machine = describe_hardware()
    pairs = {
        **{
            name: ((there.get("software") or {}).get(name), v)
            for name, v in software_versions().items()
        },
        "CPU": ((there.get("hardware") or {}).get("cpu"), machine["cpu"]),
        "commit": (commits[0], commits[1]),
    }
    for name, (before, now) in pairs.items():
        if before is not None and before != now:
            yield f"{name} {before} there, {now} here"


def report_reproduction(repeat: Reproduction, run_dir: Path, said: list[str]) -> None:
    """Print whether the metrics are the record's, and leave ``repeat.json``."""
    mine, there = read_record(run_dir)["metrics"], repeat.record["metrics"]
    # NaN is NaN's equal here; in JSON both are null.
    both = {name: to_json_types([there.get(name), mine.get(name)]) for name in {**there, **mine}}
    other = {name: pair for name, pair in both.items() if pair[0] != pair[1]}
    write_json(
        run_dir / REPEAT,
        {
            "record": str(repeat.path),
            "sha256": sha256_file(repeat.path),
            "overrides": mask_arguments(repeat.overrides),
            "said": said,
            "metrics": other,
        },
    )
    if not other:
        print(f"The same metrics as {repeat.path}, to the bit")
    for name, (before, now) in other.items():
        print(f"{name}: {before} in {repeat.path}, {now} here")


def masked(config: Any, key: str = "") -> Iterator[str]:
    """The keys whose values were not recorded, for they mean a credential."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from masked(value, f"{key}.{name}" if key else str(name))
    elif config == MASK:
        yield key
