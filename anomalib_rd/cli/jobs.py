"""The jobs of a multirun, each with its folder, before the first one starts."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import read_json
from anomalib_rd.results.identity import config_digest, require_same_run
from anomalib_rd.results.record import RESULT, limits_of

LISTED = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Job:
    """One job of a multirun.

    Attributes:
        folder: below the sweep's.
        overrides: what the job's config is composed from.
        digest: of its config.
        complete: whether its folder holds the finished run.
    """

    folder: str
    overrides: list[str]
    digest: str
    complete: bool


def list_jobs(config: DictConfig) -> list[Job] | None:
    """The jobs that Hydra is about to launch, as it will name and compose them.

    Args:
        config: of the multirun, Hydra's own part included.

    Returns:
        One job for each folder; None for a search, whose jobs nobody knows in advance.

    Raises:
        UserError: two jobs with the same folder, or a folder that holds another config's run.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if config.objective is not None or config.hydra.sweeper._target_ != LISTED:
        return None
    sweep = Path(config.hydra.sweep.dir)
    loader = GlobalHydra.instance().config_loader()
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    # As typed: an interpolation among them is the job's to resolve.
    task: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    words += task
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    jobs: dict[str, Job] = {}
    # Hydra takes 0.1 s to compose a job's config: half a minute for some hundred.
    for number, overrides in enumerate(tracked(batch)):
        composed = loader.load_sweep_config(config, list(overrides))
        with as_launched(composed, number) as (folder, task):
            job = Job(folder, overrides, config_digest(task), holds_run(sweep / folder, task))
        if job.digest != jobs.setdefault(folder, job).digest:
            raise UserError(
                f"{sweep / folder}: two jobs would share this folder ({' '.join(overrides)} and "
                f"{' '.join(jobs[folder].overrides)}); leave hydra.sweep.subdir as it is"
            )
    return list(jobs.values())


def tracked(batch: list[list[str]]) -> Iterable[list[str]]:
    """The jobs, with a progress bar on a terminal where they are many."""
    from rich.console import Console
    from rich.progress import track

    quiet = len(batch) < 30 or not sys.stderr.isatty()
    return track(batch, "looking at the jobs", console=Console(stderr=True), disable=quiet)


def holds_run(folder: Path, cfg: DictConfig) -> bool:
    """Whether a folder holds the finished run of a config, and all of it: see ``protocol.partial``.

    Raises:
        UserError: it holds another config's, or a record that cannot be read.
    """
    if not (folder / RESULT).is_file():
        return False
    record = read_json(folder / RESULT)
    require_same_run(folder, cfg, record.get("config") or {}, record.get("config_digest"))
    return not limits_of(record)


@contextmanager
def as_launched(config: DictConfig, number: int) -> Iterator[tuple[str, DictConfig]]:
    """A job's folder below the sweep's, and its config as the job will see it.

    The config can be resolved inside the block, where Hydra's own values are known.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra: Any = HydraConfig.instance()
    before = hydra.cfg
    try:
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        hydra.set_config(config)
        folder = str(config.hydra.sweep.subdir)
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(Path(config.hydra.sweep.dir, folder).absolute())
        hydra.set_config(config)
        with read_write(config), open_dict(config):
            del config["hydra"]
        yield folder, config
    finally:
        hydra.cfg = before
