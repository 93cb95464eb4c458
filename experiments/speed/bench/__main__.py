"""Speed measurements: ``python -m experiments.speed.bench --help``."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from omegaconf import OmegaConf
from torch import Tensor

from anomalib_rd.cli.config import compose_config, literal, register_resolvers
from anomalib_rd.cli.errors import explain
from anomalib_rd.cli.override_checks import check_overrides
from anomalib_rd.cli.overrides import quote_overrides
from anomalib_rd.data import AnomalyDataModule, read_image
from anomalib_rd.errors import UserError
from anomalib_rd.networks import Distiller
from anomalib_rd.results.files import to_json_types, write_json
from anomalib_rd.scoring import AnomalyScorer
from anomalib_rd.training.build import make_data, make_module

from . import commands, display, infer, metrics, train
from .measuring import machine

# Overrides before and after the user's.
DEFAULTS = ("model=rd4ad", "data.train_batch_size=16", "trainer.max_epochs=2")
FIXED = (
    "logger=none",
    "report.heatmaps=0",
    "report.gallery=0",
    "test_during_training=false",
    "optimized_metric=null",
)


@dataclass(frozen=True)
class MeasuredRun:
    """The run that `train` and `infer` measure: the user's overrides, the device and the images."""

    overrides: list[str]
    device: torch.device
    data: AnomalyDataModule

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> "MeasuredRun":
        """Compose the config once; UserError if it, the data or the device is invalid."""
        if options.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch finds no CUDA device; choose cpu or auto")
        cuda = options.device != "cpu" and torch.cuda.is_available()
        register_resolvers()
        overrides = quote_overrides(options.overrides, multirun=False)
        check_overrides(overrides)
        data = make_data(OmegaConf.create(resolve_config(overrides, cuda)))
        # Contestants have separate cache folders: do not create the demo data again in each.
        overrides = [*overrides, f"data.root={literal(str(data.root))}"]
        return cls(overrides, torch.device("cuda" if cuda else "cpu"), data)

    def config(self, overrides: Sequence[str] = (), run_dir: Path = Path()) -> dict[str, Any]:
        """The resolved config of a contestant, with its overrides and folder."""
        return resolve_config([*self.overrides, *overrides], self.device.type == "cuda", run_dir)

    @property
    def facts(self) -> dict[str, Any]:
        """Title, overrides and device, and facts about the machine."""
        config = self.config()
        model, category = config["model"], config["data"]["category"]
        height, width = self.data.image_size
        return {
            **machine(cuda=self.device.type == "cuda"),
            "title": f"{model['name']}, {model['teacher']['name']}, {category} {height} x {width}",
            "overrides": self.overrides,
            "device": self.device.type,
        }

    def make_networks(self) -> tuple[Distiller, AnomalyScorer]:
        """Untrained networks of the run, and its scorer."""
        cfg = OmegaConf.create(self.config())
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        module = make_module(cfg)
        return module.distiller, module.scorer

    def test_images(self, count: int) -> Tensor:
        """At most ``count`` test images, evenly spread: (N, 3, H, W) uint8."""
        samples = self.data.split.test
        images = samples[:: max(1, len(samples) // count)][:count]
        return torch.stack([read_image(sample.path, self.data.image_size) for sample in images])


def resolve_config(overrides: Sequence[str], cuda: bool, run_dir: Path = Path()) -> dict[str, Any]:
    """The resolved config of a run without progress bar, loggers and images, in plain types."""
    folder = f"run_dir={literal(str(run_dir))}"
    accelerator = f"trainer.accelerator={'gpu' if cuda else 'cpu'}"
    cfg = compose_config([*DEFAULTS, *overrides, *FIXED, folder, accelerator])
    without_hydra = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    config = OmegaConf.to_container(without_hydra, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    config["callbacks"].pop("progress", None)
    config["trainer"]["enable_progress_bar"] = False
    return {str(key): value for key, value in config.items()}


def bench_metrics(options: argparse.Namespace) -> dict[str, Any]:
    """Exact pixel metrics next to other implementations."""
    maps, size, rounds = options.maps, options.size, options.rounds
    result = machine(cuda=False) | metrics.measure(maps, size, rounds)
    if options.growth:
        counts = [maps // 4, maps // 2, maps, 2 * maps, 4 * maps]
        result["growth"] = metrics.growth(counts, [size // 2, size, 2 * size], rounds)
    display.print_metrics(result)
    if options.plot:
        display.plot_growth(result["growth"], options.plot, result["machine"])
    return result


def bench_train(options: argparse.Namespace) -> dict[str, Any]:
    """Complete runs next to RD4AD's plain loop, switch by switch."""
    for key, value in (
        ("trainer.max_epochs", options.epochs),
        ("data.train_batch_size", options.batch_size),
    ):
        options.overrides += [] if value is None else [f"{key}={value}"]
    run = MeasuredRun.from_options(options)
    variants = train.select_variants(options.only, run.device.type == "cuda")
    images = [sample.path for sample in run.data.split.train]
    result = run.facts | train.measure(variants, run.config, images)
    display.print_train(result)
    if options.plot:
        display.plot_train(result, options.plot)
    return result


def bench_infer(options: argparse.Namespace) -> dict[str, Any]:
    """Scoring of test images next to RD4AD's plain loop and other runtimes."""
    run = MeasuredRun.from_options(options)
    images, batch_size = run.test_images(options.images), run.data.test_batch_size
    measured = infer.measure(*run.make_networks(), images, batch_size, options.rounds, run.device)
    result = run.facts | measured
    display.print_infer(result)
    return result


def bench_startup(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds until a command prints something."""
    result = machine(cuda=False) | commands.measure_startup(options.rounds)
    display.print_startup(result)
    return result


def bench_report(options: argparse.Namespace) -> dict[str, Any]:
    """Building and opening the HTML page of a large sweep."""
    counts = (options.categories, options.seeds, options.variants)
    result = machine(cuda=False) | commands.measure_report(*counts)
    display.print_report(result)
    return result


BENCHES = {
    "metrics": bench_metrics,
    "train": bench_train,
    "infer": bench_infer,
    "startup": bench_startup,
    "report": bench_report,
}


class Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message."""
        raise UserError(f"{message}; see `{self.prog} --help`")


def at_least(minimum: int) -> Any:
    """An argparse type: an integer with a minimum."""

    def integer(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text}: must be at least {minimum}")
        return int(text)

    return integer


def output_file(text: str) -> Path:
    """An argparse type: a file in an existing folder."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: the folder {path.parent} does not exist")
    return path


def plot_file(text: str) -> Path:
    """An argparse type: an image file in an existing folder."""
    path = output_file(text)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text}: must end in .png, .svg or .pdf")
    return path


def make_parser() -> Parser:
    """The command line of all benches."""
    parser = Parser(
        prog="python -m experiments.speed.bench", description=(__doc__ or "").split(":")[0]
    )
    benches = parser.add_subparsers(required=True, metavar="BENCH", dest="bench")
    subparsers = {}
    for name, bench in BENCHES.items():
        sub = subparsers[name] = benches.add_parser(name, help=bench.__doc__)
        sub.add_argument("--json", type=output_file, help="write the figures to this file")
    for name in ("metrics", "infer", "startup"):
        subparsers[name].add_argument(
            "--rounds", type=at_least(1), default=5, help="interleaved (%(default)s)"
        )
    for name in ("train", "infer"):
        sub = subparsers[name]
        sub.add_argument(
            "overrides",
            nargs="*",
            default=[],
            metavar="KEY=VALUE",
            help="overrides, such as data=mvtec data.category=pill model/teacher=resnet18",
        )
        sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    sub = subparsers["metrics"]
    sub.add_argument("--maps", type=at_least(2), default=115, help="anomaly maps (%(default)s)")
    sub.add_argument("--size", type=at_least(32), default=256, help="side in pixels (%(default)s)")
    sub.add_argument(
        "--growth",
        action="store_true",
        help="also from a quarter to four times the maps, and from half to twice the size",
    )
    sub.add_argument("--plot", type=plot_file, help="plot the growth to this file")

    sub = subparsers["train"]
    sub.add_argument("--epochs", type=at_least(1), help="default 2; the first one fills the caches")
    sub.add_argument("--batch-size", type=at_least(1), help="default 16")
    names = ", ".join(variant.name for variant in train.VARIANTS)
    sub.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"of {names}")
    sub.add_argument("--plot", type=plot_file, help="plot bars of images/s to this file")

    subparsers["infer"].add_argument(
        "--images", type=at_least(1), default=32, help="test images (%(default)s)"
    )
    for name, default in (("categories", 15), ("seeds", 3), ("variants", 4)):
        subparsers["report"].add_argument(
            f"--{name}", type=at_least(1), default=default, help="(%(default)s)"
        )
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line and check related options; UserError if it is invalid."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    # Overrides may follow flags too.
    takes_overrides = options.bench in ("train", "infer")
    unknown = [text for text in rest if not takes_overrides or text.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.bench == "train":
        rest += [name for name in options.only if "=" in name]
        options.only = [name for name in options.only if "=" not in name]
        known = [variant.name for variant in train.VARIANTS]
        for name in options.only:
            if name not in known:
                parser.error(f"--only {name}: choose from {', '.join(known)}")
    if options.bench == "metrics":
        if options.plot and not options.growth:
            parser.error("--plot needs --growth")
        if options.growth and (options.maps < 8 or options.size < 64):
            parser.error("--growth: --maps must be at least 8 and --size at least 64")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print tables; returns the exit status, 2 for a user error."""
    try:
        options = parse(arguments)
        result = BENCHES[options.bench](options)
        if options.json:
            write_json(options.json, to_json_types({"bench": options.bench, **result}))
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print(f"bench: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
