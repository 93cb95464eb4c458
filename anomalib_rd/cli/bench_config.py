"""The run that ``anomalib-rd bench`` measures, from overrides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import OmegaConf
from torch import Tensor

from anomalib_rd.cli.categories import composed
from anomalib_rd.cli.config import register_resolvers
from anomalib_rd.cli.values import check_values
from anomalib_rd.cli.words import as_typed, literal
from anomalib_rd.data import AnomalyDataModule, read_image
from anomalib_rd.errors import UserError
from anomalib_rd.networks import Distiller
from anomalib_rd.scoring import AnomalyScorer
from anomalib_rd.training.run import make_data, make_module

# The user's overrides come after the first and before the second.
DEFAULTS = ("model=rd4ad", "data.train_batch_size=16", "trainer.max_epochs=2")
FIXED = ("logger=none", "heatmaps=0", "gallery=0", "test_curve=false", "objective=null")


@dataclass(frozen=True)
class MeasuredRun:
    """What to measure.

    Attributes:
        overrides: of the config, the user's own first.
        cuda: whether it runs on CUDA, else on the CPU.
        data: its images.
    """

    overrides: list[str]
    cuda: bool
    data: AnomalyDataModule

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device("cuda" if self.cuda else "cpu")

    def config(self, own: Sequence[str] = (), run_dir: Path = Path()) -> dict[str, Any]:
        """The config with a contestant's own overrides and folder, in plain types."""
        return resolved([*self.overrides, *own], self.cuda, run_dir)

    @property
    def facts(self) -> dict[str, Any]:
        """For the title and the record."""
        config = self.config()
        model, category = config["model"], config["data"]["category"]
        height, width = self.data.image_size
        return {
            "title": f"{model['name']}, {model['teacher']['name']}, {category} {height} x {width}",
            "overrides": self.overrides,
            "device": self.device.type,
        }

    def networks(self) -> tuple[Distiller, AnomalyScorer]:
        """Networks as a run begins with, and its scorer."""
        cfg = OmegaConf.create(self.config())
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        module = make_module(cfg, self.data, {})
        return module.distiller, module.scorer

    def test_images(self, count: int) -> Tensor:
        """At most ``count`` test images, spread over them all: (N, 3, H, W) uint8."""
        samples = self.data.split.test
        kept = samples[:: max(1, len(samples) // count)][:count]
        return torch.stack([read_image(sample.path, self.data.image_size) for sample in kept])


def measured_run(overrides: list[str], device: str) -> MeasuredRun:
    """Compose once, to find what is wrong and where the images are.

    Raises:
        UserError: CUDA asked for and absent, or what a run finds wrong with config or data.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device; choose cpu or auto")
    cuda = device != "cpu" and torch.cuda.is_available()
    register_resolvers()
    overrides = as_typed(overrides, many=False)
    check_values(overrides)
    data = make_data(OmegaConf.create(resolved(overrides, cuda)))
    # Contestants have cache folders of their own, where the demo data would be made anew.
    return MeasuredRun([*overrides, f"data.root={literal(str(data.root))}"], cuda, data)


def resolved(overrides: Sequence[str], cuda: bool, run_dir: Path = Path()) -> dict[str, Any]:
    """The config of a run that keeps quiet, in plain types."""
    place = f"run_dir={literal(str(run_dir))}"
    accelerator = f"trainer.accelerator={'gpu' if cuda else 'cpu'}"
    cfg = composed([*DEFAULTS, *overrides, *FIXED, place, accelerator], None)
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    config = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    config["callbacks"].pop("progress", None)
    config["trainer"]["enable_progress_bar"] = False
    return {str(key): value for key, value in config.items()}
