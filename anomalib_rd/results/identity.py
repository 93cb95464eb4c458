"""What makes a run another run: the one rule behind folder names, skipping and resuming."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import plain
from anomalib_rd.results.provenance import mask_config

# What doesn't change a run's outcome doesn't make it another run, nor another variant.
NOT_COUNTED = {
    "hydra",
    "sweep",
    "name",
    "run_dir",
    "logger",
    "callbacks",
    "heatmaps",
    "gallery",
    "page",
    "threshold",
    "data.num_workers",
    "speed.image_cache",
    "speed.feature_cache",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
}
# Of those, what does change it.
BUT_COUNTED = {"callbacks.early_stopping"}
# Keys that are younger than the first records: with this value a run is what it was without them.
AS_IF_ABSENT: dict[str, Any] = {
    "averaging": {},
    "data.unified": False,
    "data.val": None,
    "data.val_share": 0.2,
    "objective_on_test": False,
    "model.tiling._target_": "anomalib_rd.scoring.Tiling",
    "model.tiling.size": None,
    "model.tiling.overlap": 0.25,
    "model.tiling.batch_size": 16,
}
SHOWN = 3


def config_digest(cfg: DictConfig) -> str:
    """Eight hex digits of the config as written, interpolations and all.

    A path that the environment says (``${oc.env:...}``) may differ between machines: as
    written it is the same run.
    """
    config = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(config, dict)
    text = json.dumps(dict(counted(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def require_same_run(
    folder: Path, cfg: DictConfig, kept: Mapping[Any, Any], kept_digest: str | None
) -> None:
    """Refuse to take the run in a folder for the one at hand if their configs differ.

    Args:
        folder: where the other run is.
        cfg: of the run at hand; it can be resolved.
        kept: the resolved config that the folder's run left.
        kept_digest: its `config_digest`; None if it left none.

    Raises:
        UserError: naming the first keys that differ, with both values.
    """
    if kept_digest == config_digest(cfg):
        return
    here = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(here, dict)
    differing = differences(kept, here)
    if not differing:
        return
    shown = [f"{key}={there} there, {here} here" for key, there, here in differing[:SHOWN]]
    if len(differing) > SHOWN:
        shown.append(f"{len(differing) - SHOWN} keys more")
    raise UserError(
        f"{folder} holds a run of another config ({'; '.join(shown)}); "
        "take another folder (hydra.run.dir=...) or remove that one"
    )


def differences(
    there: Mapping[Any, Any], here: Mapping[Any, Any]
) -> list[tuple[str, str | None, str | None]]:
    """Dotted key and both values, as JSON, wherever two resolved configs make other runs.

    A key that one of them lacks is null there.
    """
    a, b = (dict(counted(mask_config(plain(config)))) for config in (there, here))
    pairs = [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])]
    return [(key, json.dumps(x), json.dumps(y)) for key, x, y in pairs if x != y]


def counted(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys that count, each with its value; empty groups have none."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from counted(value, f"{key}.")
        elif counts(key, value):
            yield key, value


def counts(key: str, value: Any) -> bool:
    """Whether a dotted key that is no group makes a run another one by this value."""
    if key in AS_IF_ABSENT and value == AS_IF_ABSENT[key]:
        return False
    while key:
        if key in NOT_COUNTED or key in BUT_COUNTED:
            return key in BUT_COUNTED
        key = key.rpartition(".")[0]
    return True
